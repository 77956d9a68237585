"""Cutting a run where decisions differ: against a plain model that looks at one frame after the other."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ipn.framing import LENGTH, PREFIX
from ipnd.plane.batch import cut
from ipnd.plane.routes import Bundle, Route, spans

HEADS = [b"aaaa", b"aaab", b"baaa", b"mmm1", b"mmm2", b"a", b""]


class Decider:
    """Decides by the first bytes, wants more of those that begin with ``m``, and counts how often it is asked."""

    def __init__(self) -> None:
        self.known: dict[bytes, Route] = {}
        self.routes: dict[bytes, Route] = {}
        self.asked: list[bytes] = []

    def resolve(self, head: bytes) -> Route:
        self.asked.append(head)
        if head[:1] == b"m" and len(head) == 2:
            route = Route(more=4)
        else:
            route = self.routes.setdefault(head, Route(reason=head.hex()))
        self.known[head] = route
        return route

    def expected(self, frame: bytes, octets: int) -> Route:
        head = frame[:octets]
        if head[:1] == b"m" and len(head) == 2:
            head = frame[:4]
        return self.routes[head]


def run_of(frames: list[bytes]) -> tuple[memoryview, object]:
    data = b"".join(LENGTH.pack(len(frame)) + frame for frame in frames)
    ((start, stop, ends),), consumed, _, _ = cut(data, len(data), 1 << 20)
    assert (start, stop, consumed) == (0, len(data), len(data))
    return memoryview(data), ends


frames_of_all_kinds = st.lists(
    st.tuples(st.sampled_from(HEADS), st.integers(0, 6), st.integers(1, 40)), min_size=1, max_size=12
).map(lambda groups: [head + b"x" * (size + 1) for head, size, times in groups for _ in range(times)])


@given(frames=frames_of_all_kinds, octets=st.sampled_from([1, 2, 4]))
def test_each_frame_goes_the_way_that_its_first_bytes_decide(frames: list[bytes], octets: int) -> None:
    # One size for all makes a regular run, which takes the fast way; otherwise frames are looked at one by one.
    for same_size in (False, True):
        batch = [frame.ljust(12, b".") for frame in frames] if same_size else frames
        view, ends = run_of_any(batch)
        decider = Decider()
        found = spans(view, ends, octets, decider.known, decider.resolve)
        ways = [route for route, first, upto in found for _ in range(first, upto)]
        assert ways == [decider.expected(frame, octets) for frame in batch]
        assert len(decider.asked) == len(set(decider.asked)), "a decision is asked for once"
        assert all(found[i][0] is not found[i + 1][0] for i in range(len(found) - 1))


def run_of_any(frames: list[bytes]) -> tuple[memoryview, object]:
    """Return a run, its ends as a list unless they are all regular (``cut`` may have found several runs)."""
    data = b"".join(LENGTH.pack(len(frame)) + frame for frame in frames)
    sizes = {len(frame) for frame in frames}
    if len(sizes) == 1:
        stride = PREFIX + sizes.pop()
        return memoryview(data), range(stride, len(data) + 1, stride)
    ends, position = [], 0
    for frame in frames:
        position += PREFIX + len(frame)
        ends.append(position)
    return memoryview(data), ends


def test_a_frame_without_the_bytes_that_are_wanted_is_dropped_and_counted_as_such() -> None:
    for frames in ([b"mm"], [b"mm"] * 100, [b"mm", b"aaaa", b"mmm1"]):
        view, ends = run_of_any(frames)
        decider = Decider()
        route, first, upto = spans(view, ends, 2, decider.known, decider.resolve)[0]
        assert (route.reason, first, upto) == ("truncated header", 0, min(frames.count(b"mm"), len(frames)))


def test_a_long_run_of_one_conversation_is_one_span_and_one_question() -> None:
    view, ends = run_of([b"aaaa" + bytes(60)] * 500)
    decider = Decider()
    found = spans(view, ends, 4, decider.known, decider.resolve)
    assert [(first, upto) for _, first, upto in found] == [(0, 500)]
    assert decider.asked == [b"aaaa"]


@given(frames=frames_of_all_kinds, keep=st.randoms(use_true_random=False))
def test_a_bundle_is_the_frames_put_into_it_in_order(frames: list[bytes], keep: object) -> None:
    view, ends = run_of_any(frames)
    bundle, wanted = Bundle(), []
    first = 0
    while first < len(frames):
        upto = min(len(frames), first + keep.randint(1, 5))  # type: ignore[attr-defined]
        choice = keep.randint(0, 2)  # type: ignore[attr-defined]
        if choice == 0:
            bundle.add(view, ends[first - 1] if first else 0, ends, first, upto)
            wanted += frames[first:upto]
        elif choice == 1:
            bundle.add_frame(b"changed")
            wanted.append(b"changed")
        first = upto
    if wanted:
        data = bundle.data()
        starts = [0, *bundle.ends[:-1]]
        assert [bytes(data[a + PREFIX : b]) for a, b in zip(starts, bundle.ends, strict=True)] == wanted
        assert all(LENGTH.unpack_from(data, a)[0] == b - a - PREFIX for a, b in zip(starts, bundle.ends, strict=True))
