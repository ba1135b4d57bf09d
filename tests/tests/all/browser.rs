//! x
mod driver;
mod visitor;
