//! Protocols, sans IO: bytes in, typed requests and events out.
