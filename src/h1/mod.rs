//! HTTP/1.1 without input or output: bytes in, events out, bytes out. Holds no socket, reads no clock.
