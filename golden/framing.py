# SPDX-License-Identifier: Apache-2.0
"""What two chips say to each other over a line of bytes: the one description both sides are made from.

A frame is a control byte, the number of its first flit, flits, a status and CRC-32, all numbers little-endian:

    control | seq | flit ... flit | freed | map | CRC-32 | FLAG

Framing is HDLC's, as in PPP (RFC 1662): `FLAG` ends a frame, and inside it `FLAG` and `ESCAPE` are sent as `ESCAPE`
and the byte xor `FLIP`. The CRC is that of Ethernet and zlib. It begins with a session's two numbers, that of the
sender first, which are not sent: so a frame of another session is a broken frame.

Flits of a frame are of one virtual channel and follow each other; their count follows from the frame's length. The
status is that of one channel, not necessarily the same: of which flit on nothing is delivered yet (`freed`), and which
of those that may be under way are here already (`map`, a bit for each slot, a flit's slot is its number modulo their
count). Both are absolute, so a lost status is made up for by the next, and one that comes late tells nothing new.

A `HELLO` has no flits: `seq` is the sender's session, `freed` is what it takes for the receiver's, which counts when
`HEARD` is set; its CRC begins with two zeros.
"""

from enum import IntEnum

__all__ = ["CRC", "ESCAPE", "Error", "FLAG", "FLIP", "HEARD", "HELLO", "RESIDUE", "SEQUENCE", "STATUS_VC", "VC"]

FLAG, ESCAPE, FLIP = 0x7E, 0x7D, 0x20
HELLO, HEARD, VC, STATUS_VC = 0, 1, 2, 4
"""Bits of the control byte: two flags, two numbers of two bits."""
SEQUENCE = 8            # bits of a flit's number in its virtual channel, and of a session's
CRC = 0xEDB88320        # CRC-32/ISO-HDLC, the lowest bit first; begins with ones, ends inverted
RESIDUE = 0xDEBB20E3    # of a frame with its CRC


class Error(IntEnum):
    """What a link tells of."""

    NONE = 0
    DEAD = 1        # nothing came through for too long
    RESTART = 2     # the other side was reset: what was under way to it is gone
    OVERRUN = 3     # a flit came for which there was no credit, and was dropped
