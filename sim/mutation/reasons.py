# SPDX-License-Identifier: Apache-2.0
"""Why mutants that nothing notices are no cause for worry: block, pattern of the change, reason."""

REASONS = [
]
