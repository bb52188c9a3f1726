//! What providers keep, as requests and answers name it.
