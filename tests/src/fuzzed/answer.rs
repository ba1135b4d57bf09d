//! Arrow Flight messages of a hospital, as the coordinator bounds and reads them; the first byte chooses the question.

use arrow_flight::FlightData;
use futures::executor::block_on;
use sekisho_aggregation::release::Release;
use sekisho_coordinator::round::collect::read;

use super::batch::{asked, believed};

/// Messages, each a header and a body with a length of two bytes before either, as the coordinator reads them.
pub fn messages(mut bytes: &[u8]) -> Vec<FlightData> {
    let mut all = Vec::new();
    let mut field = || {
        let (length, rest) = bytes.split_first_chunk::<2>()?;
        let (field, rest) = rest.split_at(rest.len().min(u16::from_le_bytes(*length).into()));
        bytes = rest;
        Some(field.to_vec())
    };
    while let (Some(header), Some(body)) = (field(), field()) {
        all.push(FlightData { data_header: header.into(), data_body: body.into(), ..FlightData::default() });
    }
    all
}

/// One input: what is read is within its bounds, and believed as `batch.rs` has it.
///
/// # Panics
/// When it is not.
pub fn run(input: &[u8]) {
    let Some((choice, rest)) = input.split_first() else { return };
    let asked = &asked()[usize::from(choice % 4)];
    let messages = futures::stream::iter(messages(rest).into_iter().map(Ok));
    let Ok(batch) = block_on(read(&asked.plan, messages)) else { return };
    assert!(batch.num_columns() == 1 && batch.num_rows() <= asked.plan.most_numbers(), "{} rows", batch.num_rows());
    if let Ok(release) = Release::from_batch(&batch) {
        believed(asked, &release);
    }
}
