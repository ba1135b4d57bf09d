//! stub
pub mod generate;
