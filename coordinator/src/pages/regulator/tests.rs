//! Each page by each role, and what is on it.
