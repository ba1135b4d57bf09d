//! Catalogues: counts that are charged once and drawn on schedule, descriptions that others read, and who can answer.

mod counts;
mod exports;
mod network;
mod omop;
