"""Recognizing, from their first bytes, packets that show no frame and packets at which decoding can begin."""

from collections.abc import Iterator

TINY = 20
"""Size in bytes below which an MPEG-4 packet may be "not coded" and show no frame."""
IDR = {"h264": (5,), "hevc": (19, 20)}
"""Types of NAL units of pictures after which no frame depends on an earlier one."""
PICTURES = {"h264": range(1, 6), "hevc": range(32)}
"""Types of NAL units of pictures."""


def shows_no_frame(codec: str, data: memoryview) -> bool:
    """Whether a packet has a reference picture that is never shown itself (alt-ref of VP8 and VP9).

    >>> shows_no_frame("vp8", memoryview(bytes([0b0_0001]))), shows_no_frame("vp8", memoryview(bytes([0b1_0001])))
    (True, False)
    """
    if codec == "vp8":
        return not data[0] & 0x10
    if codec == "vp9" and data[-1] & 0xE0 != 0xC0:  # otherwise a superframe, one of whose frames is shown
        low = 1 if data[0] & 0x30 == 0x30 else 2  # the highest profile has an additional bit in front
        return not (data[0] >> (low + 1) & 1 or data[0] >> (low - 1) & 1)  # shows neither an earlier frame nor its own
    return False


def is_clean_start(codec: str, extradata: bytes | None, data: bytes) -> bool:
    """Whether a key frame's packet begins with a picture after which no frame depends on an earlier one.

    In most codecs all key frames are such. In H.264 and HEVC, frames that follow other key frames in the file may be shown
    before them and depend on earlier frames, which a file that begins at the key frame lacks.

    Args:
        codec: FFmpeg's name of the codec.
        extradata: Configuration of its decoder, which has the layout of NAL units in packets.
        data: The packet, or its first bytes.
    """
    if codec not in IDR:
        return True
    for start in _nal_units(data, _length_size(codec, extradata or b"")):
        kind = data[start] & 0x1F if codec == "h264" else data[start] >> 1 & 0x3F
        if kind in PICTURES[codec]:
            return kind in IDR[codec]
    return True


def is_intra_only(codec: str, extradata: bytes | None, data: bytes) -> bool:
    """Whether a packet marked as key frame depends on no other; H.264 with intra refresh marks others, too."""
    if codec != "h264":
        return True
    for start in _nal_units(data, _length_size(codec, extradata or b"")):
        if data[start] & 0x1F in PICTURES[codec] and start + 1 < len(data):
            # The first macroblock is 0, bits "1"; then comes the type of the slice: 2 or 7, bits "011" or "0001000".
            return data[start] & 0x1F == 5 or data[start + 1] & 0xF0 == 0xB0 or data[start + 1] == 0x88
    return True


def _length_size(codec: str, extradata: bytes) -> int:
    """Return the size in bytes of the length before each NAL unit; 0 if start codes separate them."""
    offset = 4 if codec == "h264" else 21
    return (extradata[offset] & 3) + 1 if len(extradata) > offset and extradata[0] == 1 else 0


def _nal_units(data: bytes, length_size: int) -> Iterator[int]:
    """Return the offsets of the NAL units of a packet."""
    offset = 0
    while offset < len(data):
        if length_size:
            start, size = offset + length_size, int.from_bytes(data[offset : offset + length_size], "big")
        else:
            start, size = data.find(b"\0\0\1", offset) + 3, 0
            if start < offset + 3:
                return
        if start < len(data):
            yield start
        offset = start + size
