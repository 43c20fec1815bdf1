"""The local server's pure parts, its command and its pytest plugin."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from datetime import datetime, timezone

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from framelane_celery.models import RenderRequest, parse_request
from framelane_celery.testing.artefacts import make_artefact
from framelane_celery.testing.clock import Clock, iso
from framelane_celery.testing.jobs import Cancelled, Completed, Failed, Life, Never, Submission
from framelane_celery.testing.lengths import output_seconds
from framelane_celery.testing.limits import FixedWindow, Periods, period

ORDER = ["ingesting", "queued", "strange", "processing", "completed", "failed", "cancelled"]


@settings(max_examples=200, deadline=None, database=None)
@given(
    duration_s=st.floats(0, 1e5),
    ingests=st.booleans(),
    strange=st.booleans(),
    outcome=st.sampled_from([Completed(), Failed(), Cancelled(), Never()]),
    at=st.lists(st.floats(0, 2e5), min_size=2, max_size=2).map(sorted),
)
def test_a_life_only_goes_forward(
    duration_s: float, ingests: bool, strange: bool, outcome: Completed | Failed | Cancelled | Never, at: list[float]
) -> None:
    life = Life(1e9, duration_s, outcome, ingests, "strange" if strange else None)
    earlier, later = (life.phase(1e9 + seconds) for seconds in at)
    assert ORDER.index(earlier.status) <= ORDER.index(later.status)
    assert earlier.since <= later.since
    if later.status == "processing":
        assert earlier.percent <= later.percent <= 99
        assert later.stage is not None
    assert later.is_terminal is (life.ends_at is not None and 1e9 + at[1] >= life.ends_at)
    assert (later.status == "processing") or later.stage is None


def test_a_settled_life_stays_settled() -> None:
    life = Life(100.0, 10.0, Never()).settle(Failed("internal"), 104.0)
    assert life.phase(103.9).status == "processing"
    assert (life.phase(104.0).status, life.phase(1e6).since) == ("failed", 104.0)


def test_a_window_begins_with_the_first_request_of_each_address() -> None:
    window = FixedWindow(2)
    assert [window.take("a", now) for now in (0.0, 10.0, 59.5, 60.0)] == [None, None, 1, None]
    assert window.take("b", 59.5) is None
    assert FixedWindow(None).take("a", 0.0) is None
    short = FixedWindow(1, 5.0)
    assert [short.take("a", now) for now in (0.0, 0.5, 4.5, 5.0, 5.1)] == [None, 5, 1, None, 5]


@pytest.mark.parametrize(
    ("now", "start", "end"),
    [
        ("2026-12-31T23:59:59", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ("2028-02-01T00:00:00", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"),
    ],
)
def test_a_period_is_a_calendar_month(now: str, start: str, end: str) -> None:
    moment = datetime.fromisoformat(now).replace(tzinfo=timezone.utc)
    assert tuple(map(iso, period(moment.timestamp()))) == (start, end)


@settings(max_examples=300, deadline=None, database=None)
@given(
    begins_at=st.floats(1.7e9, 1.9e9), length_s=st.floats(0.05, 1e6), number=st.integers(0, 1000), past=st.floats(0, 1)
)
def test_periods_follow_each_other_without_a_gap(begins_at: float, length_s: float, number: int, past: float) -> None:
    periods = Periods(length_s, begins_at)
    start, end = periods.around(begins_at + (number + past) * length_s)
    assert start <= begins_at + (number + past) * length_s < end
    assert periods.around(start) == (start, end)
    assert periods.around(end)[0] == end
    assert periods.around(begins_at)[0] == begins_at


ELEMENTS = st.one_of(
    st.fixed_dictionaries({"type": st.just("text"), "text": st.just("x"), "duration": st.floats(0.1, 60)}),
    st.fixed_dictionaries(
        {
            "type": st.just("video"),
            "source_url": st.just("https://media.example/a.mp4"),
            "in_point": st.floats(0, 9),
            "out_point": st.floats(10, 60),
            "speed": st.floats(0.25, 4),
        }
    ),
)


@settings(max_examples=100, deadline=None, database=None)
@given(
    elements=st.lists(st.tuples(ELEMENTS, st.floats(0, 60)), min_size=1, max_size=4),
    output_format=st.sampled_from(["mp4", "gif", "png"]),
    duration=st.none() | st.floats(0.1, 60),
)
def test_client_and_server_read_the_same_length_out_of_the_documentation(
    elements: list[tuple[dict[str, object], float]], output_format: str, duration: float | None
) -> None:
    listed = [element | {"time": begins} for element, begins in elements]
    body = {"elements": listed, "output_format": output_format, "duration": duration}
    assert parse_request(RenderRequest, body).estimated_output_s() == pytest.approx(output_seconds(body))


def test_a_source_of_unknown_length_is_a_second_long_here() -> None:
    video = {"type": "video", "source_url": "https://media.example/a.mp4", "time": 4}
    assert output_seconds({"elements": [video]}) == 5
    assert output_seconds({"elements": [{**video, "in_point": 9, "speed": 2}]}) == 4.5
    assert output_seconds({}) == 1


def test_a_virtual_clock_stands_still_and_a_real_one_can_be_moved_ahead() -> None:
    virtual, real = Clock(virtual=True, start=5.0), Clock(start=5.0)
    virtual.advance(2.5)
    real.advance(100)
    assert virtual.now() == 7.5
    assert 105 <= real.now() < 165
    assert (virtual.real_seconds_until(9), real.real_seconds_until(6)) == (None, 0.0)
    with pytest.raises(ValueError, match="does not go back"):
        virtual.advance(-1)


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The boxes of an ISO media file."""
    while data:
        size, kind = struct.unpack(">I4s", data[:8])
        assert 8 <= size <= len(data)
        yield kind, data[8:size]
        data = data[size:]


@pytest.mark.parametrize("extension", ["mp4", "mov"])
def test_a_film_is_whole_and_its_frame_is_where_the_index_says(extension: str) -> None:
    artefact = make_artefact(Submission("render", None, {"output_format": extension}, None, 1))
    assert [kind for kind, _ in boxes(artefact.data)] == [b"ftyp", b"moov", b"mdat"]
    (offset,) = struct.unpack(">I", artefact.data[artefact.data.index(b"stco") + 12 :][:4])
    assert artefact.data[offset : offset + 3] == b"\xff\xd8\xff"
    (size,) = struct.unpack(">I", artefact.data[artefact.data.index(b"stsz") + 16 :][:4])
    assert artefact.data[offset:][:size].endswith(b"\xff\xd9")


@pytest.mark.parametrize(
    ("extension", "begins", "mime"),
    [
        ("png", b"\x89PNG\r\n\x1a\n", "image/png"),
        ("gif", b"GIF89a", "image/gif"),
        ("jpg", b"\xff\xd8\xff", "image/jpeg"),
        ("webm", b"\x1aE\xdf\xa3", "video/webm"),
    ],
)
def test_every_format_has_its_own_file(extension: str, begins: bytes, mime: str) -> None:
    artefact = make_artefact(Submission("render", None, {"output_format": extension}, None, 1))
    assert artefact.data.startswith(begins)
    assert artefact.content_type == mime
    if extension == "png":
        length = struct.unpack(">I", artefact.data[33:37])[0]
        assert len(zlib.decompress(artefact.data[41 : 41 + length])) == 16 * (1 + 16 * 4)


@pytest.mark.parametrize(("source", "extension"), [("a.PNG?x=1", "png"), ("a.mp4", "webm")])
def test_a_removed_background_is_transparent(source: str, extension: str) -> None:
    body = {"source_url": f"https://media.example/{source}"}
    assert make_artefact(Submission("task", "remove_background", body, None, 1)).extension == extension


# ------------------------------------------------------------------ the package, the command, the plugin


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    return (done.stdout + done.stderr).strip()


def test_without_werkzeug_one_line_says_what_to_install() -> None:
    said = run_python(
        "import sys; sys.modules['werkzeug'] = None\n"
        "try:\n    from framelane_celery.testing import FramelaneServer\n"
        "except ImportError as error: print(error)"
    )
    assert said == "framelane_celery.testing needs werkzeug: pip install 'framelane-celery[testing]'"


def test_the_plugins_fixtures_serve_a_test(pytester_like: str) -> None:
    assert "2 passed" in pytester_like


@pytest.fixture
def pytester_like(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What pytest says in a project of a user's own."""
    project = tmp_path_factory.mktemp("project")
    (project / "test_it.py").write_text(
        "import urllib.request\n"
        "def test_server(framelane_server, framelane_settings):\n"
        "    assert framelane_settings['base_url'] == framelane_server.base_url\n"
        "    assert framelane_settings['api_key'] == framelane_server.api_key\n"
        "    with urllib.request.urlopen(framelane_server.base_url + '/v1/capabilities') as answer:\n"
        "        assert answer.status == 200\n"
        "def test_another(framelane_server):\n"
        "    assert len(framelane_server.ledger) == 0\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "framelane_celery.testing.plugin",
        "-W",
        "error",
        "test_it.py",
    ]
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout + done.stderr


def test_serve_says_where_it_is_and_stops_on_ctrl_c() -> None:
    code = "from framelane_celery.cli import main; main(['serve', '--port', '0', '--api-key', 'fl_mine'])"
    with subprocess.Popen([sys.executable, "-u", "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        base_url = process.stdout.readline().rpartition(" ")[2].strip()
        said = [process.stdout.readline() for _ in range(4)]
        assert f'"api_key": "fl_mine", "base_url": "{base_url}"' in said[1]
        headers = {"Authorization": "Bearer fl_mine"}
        assert requests.get(f"{base_url}/v1/renders", headers=headers, timeout=30).json()["data"] == []
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "Stopped after 1 requests.\n"
        assert process.wait(60) == 0
