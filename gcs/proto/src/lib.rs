//! Peer messages (prost) and their framing: length, version, crc32c.
