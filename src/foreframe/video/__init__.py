"""Pictures and videos: from disk, to disk, and arranged for people."""

from foreframe.video.panels import GREEN, RED, Row, bordered, error_picture, grid, strip
from foreframe.video.pixels import Pixels, pictures
from foreframe.video.read import MAX_SIDE, decode_image, read_image
from foreframe.video.stream import VideoInfo, probe_video, read_at, read_frames
from foreframe.video.write import write_gif, write_mp4, write_png

__all__ = [
    "GREEN", "MAX_SIDE", "RED", "Pixels", "Row", "VideoInfo", "bordered", "decode_image", "error_picture", "grid",
    "pictures", "probe_video", "read_at", "read_frames", "read_image", "strip", "write_gif", "write_mp4",
    "write_png",
]  # fmt: skip
