from __future__ import annotations

import pytest

from experiments.yardstick import PACKET_BYTES, run_yardstick


def test_the_plain_sender_fills_its_link_and_no_more() -> None:
    result = run_yardstick(capacity_bps=2e6, duration_s=60.0)
    sent_bps = result.packets * PACKET_BYTES * 8 / 60.0
    assert result.steps == 600
    # Its toy controller swings between 90 and 105 % of the capacity.
    assert 0.9 * 2e6 <= sent_bps <= 1.05 * 2e6
    assert result.packets_per_s == pytest.approx(result.packets / result.seconds)
