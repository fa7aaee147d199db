# SPDX-License-Identifier: Apache-2.0
"""The part of Yosys' command line that SymbiYosys uses, on the native Yosys inside pyosys.

    python sim/formal/yosys.py -ql LOG SCRIPT
"""

import sys

from pyosys import libyosys

if __name__ == "__main__":
    _, log, script = sys.argv[1:]
    libyosys.run_pass(f"tee -q -o {log} script {script}", libyosys.Design())
