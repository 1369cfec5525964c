"""Streams that are wrong, on purpose or not: a clear error, and never more memory than was allowed."""

import io
import json
import re
import struct
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clinic_files import SHAPE

from mrisps.errors import FileError
from mrisps.io.ismrmrd import IsmrmrdFile
from mrisps.server.measurement import WELCOME, Measurement, parameters_of, receive
from mrisps.server.messages import Kind, Limits, MessageReader, StreamError, message, text_message

from .conftest import stream_of, write_scan

SMALL = Limits(
    text_bytes=1 << 16, message_bytes=1 << 20, measurement_bytes=1 << 22, kspace_bytes=1 << 22, pixels=1 << 14
)
HEAD, ACQUISITION = 2 + 1024, 340


def read(content: bytes, limits: Limits = SMALL) -> Measurement | None:
    return receive(MessageReader(io.BytesIO(content), limits, WELCOME))


def test_the_same_slices_as_from_the_file(scan: Path) -> None:
    measurement = read(stream_of(scan, "tiny.xml", {"lam": 0.02, "parts": True}))
    assert measurement is not None
    assert (measurement.config, dict(measurement.parameters)) == ("tiny", {"lam": 0.02, "parts": True})
    assert (len(measurement.heads), measurement.n_waveforms) == (2 * SHAPE[1], 1)
    source = measurement.open(SMALL)
    with IsmrmrdFile(scan) as file:
        for ours, theirs in zip(source.slices(), file.slices(), strict=True):
            np.testing.assert_array_equal(ours.kspace, theirs.kspace)
            assert (ours.geometry, ours.labels) == (theirs.geometry, theirs.labels)
    as_text = read(stream_of(scan, json.dumps({"parameters": {"recipe": "tiny"}}), as_text=True))
    assert as_text is not None
    assert as_text.parameters == {"recipe": "tiny"}


def test_volumes_become_slices(tmp_path: Path) -> None:
    from clinic_files import clinical_header
    from raw_files import lines_of, normal, write_mrd

    lines = []
    for partition in range(4):
        lines += lines_of(normal((1, *SHAPE), partition), range(SHAPE[1]), kspace_encode_step_2=partition)
    head = clinical_header(
        encoded_matrix=(*SHAPE, 4),
        recon_matrix=(*SHAPE, 4),
        line_limits=(0, SHAPE[1] - 1, SHAPE[1] // 2),
        partition_limits=(0, 3, 2),
        encoded_fov_mm=(240.0, 120.0, 8.0),
        recon_fov_mm=(240.0, 120.0, 8.0),
        n_coils=1,
    )
    measurement = read(stream_of(write_mrd(tmp_path / "v.h5", lines, head)))
    assert measurement is not None
    source = measurement.open(SMALL)
    assert (len(source.images), source.n_slices, source.shape) == (1, SHAPE[0], (4, SHAPE[1]))
    assert source.head_of(SHAPE[0] - 1)["idx"]["kspace_encode_step_2"] == 0


def test_a_check_is_no_measurement() -> None:
    assert read(message(Kind.CLOSE)) is None


CONFIG = message(Kind.CONFIG_FILE, b"tiny".ljust(1024, b"\0"))
XML = text_message(Kind.HEADER, b"<ismrmrdHeader/>")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "the stream ended after 0 bytes"),
        (b"\1", "the stream ended after 1 bytes"),
        (CONFIG, "the stream ended"),
        (struct.pack("<H", 1022), "message 1022 is not welcome"),
        (struct.pack("<H", 4711), "message 4711 is not welcome"),
        (XML, "expected a configuration first, got message 3"),
        (message(Kind.CONFIG_FILE, b"\xff" * 1024), "a text is not UTF-8"),
        (message(Kind.CONFIG_TEXT, struct.pack("<I", 1 << 31)), "the text of message 2 has 2147483648 bytes, at most"),
        (CONFIG + message(Kind.HEADER, struct.pack("<I", 1 << 30)), "the text of message 3 has 1073741824 bytes"),
        (CONFIG + message(Kind.CLOSE), "there was no header"),
        (CONFIG + CONFIG, "message 1 at a place"),
        (CONFIG + XML + XML, "message 3 at a place"),
        (CONFIG + text_message(Kind.TEXT, b"{1"), "parameters: expected a JSON object"),
        (CONFIG + text_message(Kind.TEXT, b"{" * 60_000), "parameters: expected a JSON object"),
        (CONFIG + message(Kind.ACQUISITION, bytes(ACQUISITION)), "message 1008 at a place"),
        (CONFIG + 4200 * text_message(Kind.TEXT, b""), "the measurement has 4195328 bytes, at most 4194304"),
    ],
)
def test_broken_streams(content: bytes, why: str) -> None:
    with pytest.raises(StreamError) as caught:
        read(content)
    assert why in str(caught.value)


@pytest.mark.parametrize("kind", [Kind.ACQUISITION, Kind.WAVEFORM])
def test_lengths_are_checked_before_memory_is_taken(kind: Kind) -> None:
    """A head that asks for 34 GB (an acquisition) or 17 GB (a waveform)."""
    from ismrmrd.hdf5 import acquisition_header_dtype

    head = np.zeros((), acquisition_header_dtype)
    head["number_of_samples"] = head["active_channels"] = head["trajectory_dimensions"] = 0xFFFF
    waveform = bytearray(40)
    struct.pack_into("<HH", waveform, 28, 0xFFFF, 0xFFFF)
    content = CONFIG + XML + message(kind, head.tobytes() if kind == Kind.ACQUISITION else bytes(waveform))
    with pytest.raises(StreamError):  # what has to be imported is
        read(content)
    tracemalloc.start()
    with pytest.raises(StreamError, match="bytes, at most 67108864 are accepted"):
        read(content, Limits())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_images_that_are_too_large_are_refused(scan: Path) -> None:
    good = read(stream_of(scan))
    assert good is not None

    def with_header(before: bytes, after: bytes) -> Measurement:
        text = re.sub(before, after, good.header_xml)
        assert text != good.header_xml
        return replace(good, header_xml=text)

    for size in (b"60000", b"1100"):
        with pytest.raises(FileError, match="encodedSpace: 1 coils of"):
            with_header(rb"x>24</", b"x>" + size + b"</").open(SMALL)
    with pytest.raises(FileError, match="stream: header: is no valid XML"):
        with_header(b"</encodedSpace>", b"").open(SMALL)


def test_parameters() -> None:
    assert parameters_of('{"parameters": {"a": 1, "b": [2], "c": "x", "d": true, "e": null}}') == {
        "a": 1,
        "c": "x",
        "d": True,
    }
    for text in ("[1]", "7", '{"parameters": 3}', json.dumps({str(i): i for i in range(65)})):
        with pytest.raises(StreamError, match="parameters: expected a JSON object"):
            parameters_of(text)


def test_limits_are_numbers_above_zero() -> None:
    with pytest.raises(ValueError, match="pixels: expected at least 1, got 0"):
        Limits(pixels=0)


# ------------------------------------------------------------------------------------------------------ mutated streams


def cut(content: bytearray, rng: np.random.Generator) -> None:
    del content[rng.integers(len(content)) :]


def flip_bits(content: bytearray, rng: np.random.Generator) -> None:
    for _ in range(rng.integers(1, 20)):
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)


def garbage(content: bytearray, rng: np.random.Generator) -> None:
    start = int(rng.integers(len(content)))
    content[start : start + int(rng.integers(1, 400))] = rng.bytes(int(rng.integers(0, 400)))


def repeat(content: bytearray, rng: np.random.Generator) -> None:
    start, n = int(rng.integers(len(content))), int(rng.integers(1, 3000))
    content[start:start] = content[start : start + n]


def drop(content: bytearray, rng: np.random.Generator) -> None:
    start = int(rng.integers(len(content)))
    del content[start : start + int(rng.integers(1, 3000))]


def _acquisitions(content: bytearray) -> int:
    return content.index(struct.pack("<HHQ", 1008, 1, 0))


def heads(content: bytearray, rng: np.random.Generator) -> None:
    """Numbers in the heads of acquisitions: sizes, counters, directions."""
    first, step = _acquisitions(content), 2 + ACQUISITION + 8 * SHAPE[0]
    for _ in range(rng.integers(1, 6)):
        place = first + step * int(rng.integers(2 * SHAPE[1])) + 2 + 2 * int(rng.integers(ACQUISITION // 2))
        content[place : place + 2] = struct.pack("<H", int(rng.choice([0, 1, 2, 7, 255, 0x7FC0, 0x7FFF, 0xFFFF])))


def xml(content: bytearray, rng: np.random.Generator) -> None:
    """Numbers in the header."""
    begin, end = content.index(b"<encoding>"), content.index(b"</encoding>")
    digits = [i for i in range(begin, end) if 48 <= content[i] <= 57]
    for _ in range(rng.integers(1, 4)):
        content[int(rng.choice(digits))] = int(rng.choice(list(b"0123456789-.en<&")))


def samples(content: bytearray, rng: np.random.Generator) -> None:
    """Samples that are NaN, infinite or huge."""
    first, step = _acquisitions(content), 2 + ACQUISITION + 8 * SHAPE[0]
    place = first + step * int(rng.integers(2 * SHAPE[1])) + 2 + ACQUISITION + 4 * int(rng.integers(2 * SHAPE[0]))
    content[place : place + 4] = struct.pack("<f", float(rng.choice([np.nan, np.inf, 3e38, 1e-45])))


MUTATIONS: tuple[Callable[[bytearray, np.random.Generator], None], ...] = (
    *(cut, flip_bits, garbage, repeat, drop, heads, xml, samples),
)


OUTCOMES = {"refused by the protocol", "refused by the reader", "as good as a measurement"}


def outcome(content: bytes) -> str:
    """What becomes of a stream up to the solver; anything but an error of ours is the failure of the test."""
    try:
        measurement = read(content)
        if measurement is None:
            return "check"
        source = measurement.open(SMALL)
        for index in range(min(source.n_slices, 4)):
            record = source.read_slice(index)
            assert np.isfinite(record.kspace).all()
    except StreamError:
        return "refused by the protocol"
    except FileError as error:
        return "refused by the reader" if error.field else "refused without a field"
    return "as good as a measurement"


def fuzz(tmp_path: Path, n: int) -> dict[str, Counter[str]]:
    content = stream_of(write_scan(tmp_path / "scan.h5"))
    rng = np.random.default_rng(0)
    outcomes = {mutation.__name__: Counter[str]() for mutation in MUTATIONS}
    for index in range(n):
        mutation, mutated = MUTATIONS[index % len(MUTATIONS)], bytearray(content)
        mutation(mutated, rng)
        outcomes[mutation.__name__][outcome(bytes(mutated))] += 1
    return outcomes


def test_mutated_streams(tmp_path: Path) -> None:
    outcomes = fuzz(tmp_path, 200)
    total = sum(outcomes.values(), Counter[str]())
    assert total.total() == 200
    assert set(total) == OUTCOMES
    assert set(outcomes["cut"]) == {"refused by the protocol"}


@pytest.mark.slow
def test_five_thousand_mutated_streams(tmp_path: Path) -> None:
    outcomes = fuzz(tmp_path, 5000)
    assert {name for counts in outcomes.values() for name in counts} <= OUTCOMES
    assert sum(counts.total() for counts in outcomes.values()) == 5000
