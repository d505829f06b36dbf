"""Parity packets are real packets, come off the encoder's budget, and bring back what they can."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bwe_env.config import (
    CallConfig,
    FecConfig,
    JitterConfig,
    LinkConfig,
    LossConfig,
    PathConfig,
    VideoConfig,
)
from bwe_env.errors import ConfigError
from bwe_env.network import Network
from bwe_env.sim.fec import (
    FEC,
    FEC_HEADER_BYTES,
    fec_begin_block,
    fec_end_block,
    fec_loss,
    fec_on_loss,
    fec_on_media,
    fec_protection,
    fec_reset,
)
from bwe_env.sim.packet import (
    FATE_DELIVERED,
    KIND_FEC,
    KIND_RTX,
    KIND_VIDEO,
)
from bwe_env.sim.tables import configure_fec
from bwe_env.trace import constant, square
from tests.reference.naive_fec import Arrival, NaiveBlock, recovered
from tests.sim.calls import PLAIN_VIDEO, SILENT, OneCall


def make_fec(config: FecConfig | None = None) -> Any:
    rows = np.zeros(1, FEC)
    configure_fec(rows, config or FecConfig(enabled=True))
    fec_reset(rows[0])
    return rows[0]


def with_fec(**changes: Any) -> VideoConfig:
    return VideoConfig(
        encoder_lag_s=0.0,
        frame_size_sd=0.0,
        key_frame_ratio=1.0,
        fec=FecConfig(enabled=True),
        **changes,
    )


LOSSES = {
    "single": LossConfig(good_loss=0.05),
    "bursts": LossConfig(good_loss=0.005, bad_loss=0.8, good_to_bad=0.02, bad_to_good=0.3),
    "heavy": LossConfig(good_loss=0.3),
}


def lossy(name: str, *, reverse_s: float = 0.04, overtaking_s: float = 0.0) -> Network:
    return Network(
        trace=square(6e6, 2.5e6, half_period_s=0.7, name=name),
        link=LinkConfig(loss_before_queue=True),
        forward=PathConfig(
            propagation_delay_s=0.04,
            loss=LOSSES[name],
            jitter=JitterConfig(distribution="uniform", scale_s=overtaking_s),
            keeps_order=overtaking_s == 0.0,
        ),
        reverse=PathConfig(propagation_delay_s=reverse_s),
    )


# --- How much -------------------------------------------------------------------------------------


def test_without_loss_or_below_20_ms_or_for_small_frames_there_is_no_parity() -> None:
    fec = make_fec()
    assert fec_protection(fec, 100_000, 5.0, 5_000.0, 921_600) == 0.0
    fec_on_loss(fec, 10, 90, 1_000_000)
    assert fec_protection(fec, 19_999, 5.0, 5_000.0, 921_600) == 0.0
    for pixels, least_bytes in ((57_600, 400), (230_400, 700), (921_600, 1_000)):
        assert fec_protection(fec, 100_000, 5.0, least_bytes - 1, pixels) == 0.0
        assert fec_protection(fec, 100_000, 5.0, least_bytes, pixels) == pytest.approx(0.2)
        assert fec_protection(fec, 200_000, 5.0, least_bytes - 1, pixels) == pytest.approx(0.2)


def test_protection_is_twice_the_loss_between_a_fifth_and_a_half_and_more_for_key_frames() -> None:
    for lost, expected in ((1, 0.2), (10, 0.2), (15, 0.3), (25, 0.5), (60, 0.5)):
        fec = make_fec()
        fec_on_loss(fec, lost, 100 - lost, 1_000_000)
        assert fec_protection(fec, 100_000, 5.0, 5_000.0, 921_600) == pytest.approx(expected)
        # A frame of one packet has no least protection.
        alone = fec_protection(fec, 100_000, 1.0, 5_000.0, 921_600)
        assert alone == pytest.approx(min(0.5, 2.0 * lost / 100))
        fec_on_media(fec, 0, 1_000, 1)
        key = fec_protection(fec, 100_000, 5.0, 5_000.0, 921_600)
        assert key == pytest.approx(min(0.5, 2.0 * expected))
        # Even below 20 ms a key frame is protected as much as is lost.
        assert fec_protection(fec, 1_000, 5.0, 5_000.0, 921_600) == pytest.approx(
            min(0.5, lost / 100)
        )


def test_loss_counts_as_its_largest_value_in_ten_seconds() -> None:
    fec = make_fec()
    fec_on_loss(fec, 20, 80, 1_500_000)
    fec_on_loss(fec, 1, 99, 5_500_000)
    assert fec_loss(fec) == pytest.approx(0.2)
    fec_on_loss(fec, 0, 100, 10_900_000)
    assert fec_loss(fec) == pytest.approx(0.2)
    fec_on_loss(fec, 0, 100, 11_000_000)
    assert fec_loss(fec) == pytest.approx(0.01)
    fec_on_loss(fec, 0, 100, 99_000_000)
    assert fec_loss(fec) == 0.0


@pytest.mark.parametrize(
    ("media", "protection", "parity"),
    [(10, 0.2, 3), (10, 0.5, 10), (3, 0.2, 1), (1, 0.01, 1), (48, 0.5, 48), (10, 0.0, 0)],
)
def test_a_share_of_the_total_becomes_so_many_parity_packets(
    media: int, protection: float, parity: int
) -> None:
    fec = make_fec()
    fec_begin_block(fec)
    for seq in range(media):
        fec_on_media(fec, seq, 1_000, 0)
    assert fec_end_block(fec, protection) == parity


def test_a_table_that_does_not_fit_its_knots_is_refused() -> None:
    with pytest.raises(ConfigError, match="4 shares"):
        FecConfig(protection=(0.1, 0.2, 0.3))
    with pytest.raises(ConfigError, match="rising"):
        FecConfig(loss_knots=(0.1, 0.2))


# --- In a call ------------------------------------------------------------------------------------


def play(
    name: str, *, repair: bool, overtaking_s: float = 0.0
) -> tuple[OneCall, dict[int, NaiveBlock]]:
    """A call of 8 s at 1.5 Mbps, and all its blocks."""
    config = CallConfig(video=with_fec(repair=repair))
    network = lossy(name, overtaking_s=overtaking_s)
    call = OneCall(network, config, mode="rate", key=3, step_us=100_000)
    spans: dict[int, tuple[int, int, int]] = {}
    while call.now_us < 8_000_000:
        call.step(1_500_000)
        for block in call.flow.fec.blocks:
            if block["number"] >= 0:
                spans[int(block["number"])] = (
                    int(block["first_seq"]),
                    int(block["last_seq"]),
                    int(block["num_parity"]),
                )
    is_video = call.packets["kind"] == KIND_VIDEO
    blocks = {}
    for number, (first, last, parity) in spans.items():
        media = first + np.flatnonzero(is_video[first : last + 1])
        blocks[number] = NaiveBlock(tuple(media.tolist()), parity)
    return call, blocks


@pytest.mark.parametrize("overtaking_s", [0.0, 0.02])
@pytest.mark.parametrize("repair", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_exactly_those_packets_come_back_that_the_naive_twin_brings_back(
    name: str, repair: bool, overtaking_s: float
) -> None:
    call, blocks = play(name, repair=repair, overtaking_s=overtaking_s)
    rows = call.packets
    arrivals = []
    delivered = np.flatnonzero(rows["fate"] == FATE_DELIVERED)
    in_time = np.argsort(rows["arrival_us"][delivered], kind="stable")
    for seq in delivered[in_time].tolist():
        row = rows[seq]
        if row["kind"] == KIND_VIDEO:
            arrivals.append(Arrival(media=seq))
        elif row["kind"] == KIND_RTX:
            arrivals.append(Arrival(media=seq - int(row["repairs"])))
        elif row["kind"] == KIND_FEC:
            arrivals.append(Arrival(block=int(row["frame"]), parity=int(row["repairs"])))
    found = recovered(blocks, arrivals)
    assert len(found) == len(set(found)) == call.flow.totals.fec_recovered > 20
    assert (rows["is_repaired"][found] == 1).all()
    if not repair:
        assert np.flatnonzero(rows["is_repaired"] == 1).tolist() == sorted(found)
    else:
        repeats = (rows["kind"] == KIND_RTX) & (rows["fate"] == FATE_DELIVERED)
        by_repeat = repeats.sum() - call.flow.totals.duplicate_packets
        assert (rows["is_repaired"] == 1).sum() == len(found) + by_repeat


def test_parity_packets_are_sent_after_their_block_and_as_large_as_its_largest_packet() -> None:
    call, blocks = play("single", repair=True)
    rows = call.packets
    parity = np.flatnonzero(rows["kind"] == KIND_FEC)
    assert len(parity) > 100
    for seq in parity.tolist():
        block = blocks[int(rows["frame"][seq])]
        assert seq > block.media[-1]
        largest = rows["size_bytes"][list(block.media)].max()
        assert rows["size_bytes"][seq] == largest + FEC_HEADER_BYTES
        following = np.flatnonzero(rows["kind"][:seq] == KIND_VIDEO)[-1]
        assert following == block.media[-1]  # no video between a block and its parity
    for number, block in blocks.items():
        mine = rows["repairs"][parity][rows["frame"][parity] == number]
        assert mine.tolist() == list(range(len(mine)))
        assert len(mine) <= block.num_parity <= len(block.media)


def test_a_block_lasts_two_round_trips_of_frames_that_are_coded() -> None:
    # 30 kbps are 13 frames a second at the coarsest quantiser: 5 in two round trips of 0.21 s,
    # where the camera's 30 would make it 6, the most.
    network = lossy("single", reverse_s=0.165)
    call = OneCall(network, CallConfig(video=with_fec(), audio=SILENT), mode="rate", key=3)
    call.run_until(30.0, 30_000)
    assert call.flow.encoder.next_frame / 30.0 == pytest.approx(13.0, abs=0.3)
    assert call.flow.rtt_us == pytest.approx(206_000, abs=2_000)
    blocks = call.flow.fec.blocks
    late = blocks[blocks["number"] > blocks["number"].max() - 10]
    assert len(late) == 10
    for block in late:
        rows = call.packets[block["first_seq"] : block["last_seq"] + 1]
        assert len(np.unique(rows["frame"][rows["kind"] == KIND_VIDEO])) == 5


def test_protection_comes_off_the_encoder_and_takes_at_most_half() -> None:
    plain = OneCall(lossy("heavy"), CallConfig(video=PLAIN_VIDEO, audio=SILENT), mode="rate", key=3)
    plain.run_until(20.0, 1_000_000)
    call = OneCall(lossy("heavy"), CallConfig(video=with_fec(), audio=SILENT), mode="rate", key=3)
    call.run_until(20.0, 1_000_000)
    sent = call.flow.totals.sent_bytes
    assert sent[KIND_FEC] + sent[KIND_RTX] > 0.3 * sent.sum()
    assert call.flow.encoder.rate_bps >= 0.45 * 1_000_000
    assert call.flow.encoder.rate_bps < plain.flow.encoder.rate_bps
    # Repeats and parity of so much loss exceed their half, and only by that the target.
    assert sent.sum() * 8 / 20.0 == pytest.approx(1_000_000, rel=0.15)
    light = OneCall(lossy("single"), CallConfig(video=with_fec()), mode="rate", key=3)
    light.run_until(20.0, 1_000_000)
    assert light.flow.totals.sent_bytes[KIND_FEC] > 0
    assert light.flow.totals.sent_bytes.sum() * 8 / 20.0 == pytest.approx(1_000_000, rel=0.03)


@pytest.mark.parametrize("name", LOSSES)
def test_what_comes_off_the_encoder_is_every_byte_of_parity_and_of_repeats(name: str) -> None:
    """The smoothed rate that the budget is charged with, worked out anew from what was sent."""
    call = OneCall(lossy(name), CallConfig(video=with_fec(), audio=SILENT), mode="rate", key=3)
    call.run_until(10.0, 1_500_000)
    rows, flow = call.packets, call.flow
    is_parity = rows["kind"] == KIND_FEC
    assert flow.totals.sent_bytes[KIND_FEC] == rows["size_bytes"][is_parity].sum() > 0
    charged = rows[is_parity | (rows["kind"] == KIND_RTX)]
    interval_us = float(flow.encoder.frame_interval_us)
    frames_us = np.array([int(k * interval_us + 0.5) for k in range(int(flow.encoder.captured))])
    # A frame comes before what the pacer sends at its very microsecond.
    frame = np.searchsorted(frames_us, charged["send_us"], side="right") - 1
    sent_bytes = np.bincount(frame, charged["size_bytes"], minlength=len(frames_us))
    rate_bps = 0.0
    for frame_bytes in (0.0, *sent_bytes[:-1].tolist()):
        rate_bps += (frame_bytes * 8e6 / interval_us - rate_bps) / 30.0
    assert flow.protection_rate_bps == pytest.approx(rate_bps, rel=1e-9)
    assert rate_bps > 100_000


def test_fec_off_sends_none_and_changes_no_packet() -> None:
    assert not VideoConfig().fec.enabled
    call = OneCall(Network(trace=constant(2e6)), CallConfig())
    call.run_until(5.0)
    assert not (call.packets["kind"] == KIND_FEC).any()


@pytest.mark.parametrize("jitter_buffer", [False, True])
def test_on_a_long_path_with_loss_fec_shows_more_frames_in_time(jitter_buffer: bool) -> None:
    # Over ten calls: what FEC saves in one varies by a factor of two.
    frozen_us = [0, 0]
    for key in range(5, 15):
        for number, fec in enumerate((FecConfig(), FecConfig(enabled=True))):
            config = CallConfig(video=VideoConfig(fec=fec, jitter_buffer=jitter_buffer))
            call = OneCall(lossy("single", reverse_s=0.2), config, mode="rate", key=key)
            call.run_until(20.0, 1_500_000)
            frozen_us[number] += int(call.flow.receiver.freeze_us)
    assert frozen_us[1] < 0.6 * frozen_us[0]
