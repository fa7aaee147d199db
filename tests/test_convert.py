# SPDX-License-Identifier: Apache-2.0

import pytest

from golden.formats import BF16, E2M1, E4M3, E5M2, E8M0, FP32, INT8
from hw.arith.convert import FromFp32
from sim.lanes import Lanes
from sim.run import simulate


@pytest.mark.parametrize("formats", [(FP32, BF16, E4M3, E5M2, INT8, E2M1), (BF16,)], ids=str)
def test_from_fp32(formats):
    env = {"FORMATS": " ".join(fmt.name for fmt in formats)}
    assert simulate(Lanes(FromFp32, (formats,)), "sim.benches.convert", env=env, x_initial="unique") == 2


@pytest.mark.parametrize("formats", [(), (FP32, E8M0)])
def test_formats_are_checked(formats):
    with pytest.raises(ValueError, match="^FromFp32: formats must be one or more of all but E8M0, not "):
        FromFp32(formats)
