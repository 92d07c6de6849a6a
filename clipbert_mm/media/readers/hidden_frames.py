"""Packets that show nothing, told from their first bytes."""

from collections.abc import Iterator

TINY = 20
"""Bytes below which an MPEG-4 packet may be one that is "not coded" and shows nothing."""
IDR = {"h264": (5,), "hevc": (19, 20)}
"""Kinds of NAL units that are pictures after which nothing needs what lies before them."""
PICTURES = {"h264": range(1, 6), "hevc": range(32)}
"""Kinds of NAL units that are pictures."""


def shows_nothing(codec: str, data: memoryview) -> bool:
    """Whether a packet holds a picture that others refer to and that is itself never shown (alt-ref of VP8 and VP9).

    >>> shows_nothing("vp8", memoryview(bytes([0b0_0001]))), shows_nothing("vp8", memoryview(bytes([0b1_0001])))
    (True, False)
    """
    if codec == "vp8":
        return not data[0] & 0x10
    if codec == "vp9" and data[-1] & 0xE0 != 0xC0:  # else several frames, of which one is shown
        low = 1 if data[0] & 0x30 == 0x30 else 2  # the highest profile has one bit more in front
        return not (data[0] >> (low + 1) & 1 or data[0] >> (low - 1) & 1)  # neither shows one from before nor its own
    return False


def begins_afresh(codec: str, extradata: bytes | None, data: bytes) -> bool:
    """Whether a key frame's packet begins with a picture after which nothing needs what lies before it.

    So it is for codecs in which key frames are always so. In H.264 and HEVC, frames that follow such a picture in the file may
    be shown before it and need frames from before it, which a file that begins there has not.

    Args:
        codec: FFmpeg's name of the codec.
        extradata: Configuration of its decoder; it says how NAL units are laid out in packets.
        data: The packet, or the beginning of it.
    """
    if codec not in IDR:
        return True
    for place in _nal_units(data, _length_size(codec, extradata or b"")):
        kind = data[place] & 0x1F if codec == "h264" else data[place] >> 1 & 0x3F
        if kind in PICTURES[codec]:
            return kind in IDR[codec]
    return True


def is_whole_picture(codec: str, extradata: bytes | None, data: bytes) -> bool:
    """Whether a packet that is called a key frame needs no other; H.264 with intra refresh calls others so, too."""
    if codec != "h264":
        return True
    for place in _nal_units(data, _length_size(codec, extradata or b"")):
        if data[place] & 0x1F in PICTURES[codec] and place + 1 < len(data):
            # The first macroblock is 0, "1" in bits; then comes the kind of the slice: 2 or 7, "011" or "0001000".
            return data[place] & 0x1F == 5 or data[place + 1] & 0xF0 == 0xB0 or data[place + 1] == 0x88
    return True


def _length_size(codec: str, extradata: bytes) -> int:
    """Return the bytes of the length in front of each NAL unit; 0 where start codes stand between them."""
    place = 4 if codec == "h264" else 21
    return (extradata[place] & 3) + 1 if len(extradata) > place and extradata[0] == 1 else 0


def _nal_units(data: bytes, length_size: int) -> Iterator[int]:
    """Find where the NAL units of a packet begin."""
    place = 0
    while place < len(data):
        if length_size:
            start, after = place + length_size, int.from_bytes(data[place : place + length_size], "big")
        else:
            start, after = data.find(b"\0\0\1", place) + 3, 0
            if start < place + 3:
                return
        if start < len(data):
            yield start
        place = start + after
