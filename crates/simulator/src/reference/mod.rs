//! Slow, obviously right versions of what the fleet does fast, to compare with on random histories. They share no code
//! with it.

pub mod pool;
