//! Benchmarks. Figures are ratios within one run, since machines are noisy; nothing asserts them.

mod admission;
mod log;
mod noise;
mod query;
mod source;

use serde_json::{Map, Value};

pub use self::{
    admission::{Admission, admission},
    log::log,
    noise::noise,
    query::{Query, prepare, query},
    source::Shape,
};
use crate::cli::Output;

/// Prints named figures as a table or as one JSON object.
fn print(figures: &Value, output: Output) {
    match output {
        Output::Json => println!("{figures}"),
        Output::Table => {
            let mut table = comfy_table::Table::new();
            table.load_style(comfy_table::presets::UTF8_BORDERS_ONLY).set_header(["figure", "value"]);
            for (name, value) in figures.as_object().unwrap_or(&Map::new()) {
                let text =
                    value.as_f64().filter(|_| value.is_f64()).map_or_else(|| value.to_string(), |v| format!("{v:.3}"));
                table.add_row([name.clone(), text]);
            }
            println!("{table}");
        }
    }
}
