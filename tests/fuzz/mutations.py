"""Valid files with some of their bytes changed, as Hypothesis strategies."""

from collections.abc import Sequence

from hypothesis import strategies as st

TOKENS = [  # what the formats consist of, and what has upset readers before
    *(b"\0", b"\xff", b"\n", b'"', b"{", b"[", b"}" * 9, b"]" * 9, b"[" * 999, b":", b",", b"- "),
    *(b"null", b"NaN", b"1e999", b"-1", b"9" * 5000, b"!!int ''", b"&a [*a]", b"<<", b"../", b"/"),
    *(b"\xff\xff\xff\x7f", b"\xff" * 8, b"PK\x05\x06", b"ustar", b"\x1f\x8b", b"F64", b"\xed\xa0"),
]


@st.composite
def mutated(draw: st.DrawFn, originals: Sequence[bytes]) -> bytes:
    """One of the originals after up to eight edits: cut, overwritten, inserted, repeated."""
    content = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(0, 8))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.integers(0, 40)))
        match draw(st.sampled_from(["bit", "insert", "overwrite", "remove", "repeat", "cut"])):
            case "bit" if start < len(content):
                content[start] ^= 1 << draw(st.integers(0, 7))
            case "insert":
                content[start:start] = draw(st.sampled_from(TOKENS) | st.binary(max_size=8))
            case "overwrite":
                new = draw(st.sampled_from(TOKENS) | st.binary(max_size=8))
                content[start : start + len(new)] = new
            case "remove":
                del content[start:end]
            case "repeat":
                content[start:start] = content[start:end] * draw(st.integers(1, 50))
            case "cut":
                del content[start:]
    return bytes(content)
