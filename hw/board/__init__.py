# SPDX-License-Identifier: Apache-2.0
"""An engine with memory and a serial line: what goes on an FPGA board, and the boards themselves."""
