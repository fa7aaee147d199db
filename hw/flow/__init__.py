# SPDX-License-Identifier: Apache-2.0
"""From Verilog text to area, timing and bitstreams. Nothing here knows a block: flows see text."""
