//! Ranges of patients. A query runs over one after another, each with all its patients' rows of all tables.
//!
//! Every operator of an admitted plan is per patient, so the rows over all ranges are the rows over all patients, while
//! memory holds joins, sorts and windows of one range alone. An id is a value of a patient: nothing here can be printed.

use parquet::file::statistics::Statistics;

/// An id of a patient; ids of one kind are ordered as snapshots are sorted.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PatientId {
    Int(i64),
    Text(Box<str>),
}

/// The patients from one id on, up to another who is not among them. An end that is left out is open.
#[derive(Clone, Default)]
pub struct PatientRange {
    from: Option<PatientId>,
    to: Option<PatientId>,
}

impl PatientRange {
    /// The ranges between these ids, which are ascending and differ: one more than there are ids. Each patient is in one.
    pub(super) fn between(cuts: &[PatientId]) -> Vec<Self> {
        let from = std::iter::once(None).chain(cuts.iter().cloned().map(Some));
        let to = cuts.iter().cloned().map(Some).chain(std::iter::once(None));
        from.zip(to).map(|(from, to)| Self { from, to }).collect()
    }

    /// Whether the patient of this integer id is in the range, and the id below which this holds of all that follow; none when it
    /// holds of all. No integer is in a range whose ends are text.
    pub(super) fn int_run(&self, id: i64) -> (bool, Option<i64>) {
        match (&self.from, &self.to) {
            (Some(PatientId::Text(_)), _) | (_, Some(PatientId::Text(_))) => (false, None),
            (Some(PatientId::Int(from)), _) if id < *from => (false, Some(*from)),
            (_, Some(PatientId::Int(to))) if id < *to => (true, Some(*to)),
            (_, Some(PatientId::Int(_))) => (false, None),
            (Some(PatientId::Int(_)) | None, None) => (true, None),
        }
    }

    /// Whether the patient of this text id is in the range; none is if its ends are integers.
    pub(super) fn has_text(&self, id: &str) -> bool {
        let from = match &self.from {
            None => true,
            Some(PatientId::Text(from)) => **from <= *id,
            Some(PatientId::Int(_)) => false,
        };
        let to = match &self.to {
            None => true,
            Some(PatientId::Text(to)) => *id < **to,
            Some(PatientId::Int(_)) => false,
        };
        from && to
    }

    /// Whether there may be patients of `span` in the range.
    pub(super) fn meets(&self, span: &Span) -> bool {
        let above = self.from.as_ref().zip(span.highest.as_ref()).is_none_or(|(from, highest)| from <= highest);
        let below = self.to.as_ref().zip(span.lowest.as_ref()).is_none_or(|(to, lowest)| lowest < to);
        above && below
    }
}

/// Between which ids the patients of a row group are: outside the ends there is none. An end that is not known is open.
#[derive(Clone, Default)]
pub(super) struct Span {
    pub(super) lowest: Option<PatientId>,
    highest: Option<PatientId>,
}

impl Span {
    /// As the footer tells of the patient column. Long texts are cut there, the lowest down and the highest up.
    #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum: a patient column is an integer or text")]
    pub(super) fn of(statistics: &Statistics) -> Self {
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(|text| PatientId::Text(text.into()));
        match statistics {
            Statistics::Int64(ends) => Self {
                lowest: ends.min_opt().copied().map(PatientId::Int),
                highest: ends.max_opt().copied().map(PatientId::Int),
            },
            Statistics::ByteArray(ends) => Self {
                lowest: ends.min_opt().and_then(|min| text(min.data())),
                highest: ends.max_opt().and_then(|max| text(max.data())),
            },
            _ => Self::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_patient_is_in_one_range_and_in_a_span_that_meets_it() {
        let cuts = [-5, 0, 7].map(PatientId::Int);
        let ranges = PatientRange::between(&cuts);
        assert_eq!(ranges.len(), 4);
        for (id, expect) in [(i64::MIN, 0), (-6, 0), (-5, 1), (-1, 1), (0, 2), (6, 2), (7, 3), (i64::MAX, 3)] {
            let span = Span { lowest: Some(PatientId::Int(id)), highest: Some(PatientId::Int(id)) };
            for (i, range) in ranges.iter().enumerate() {
                let (within, until) = range.int_run(id);
                assert_eq!((within, range.meets(&span)), (i == expect, i == expect), "{id} in {i}");
                assert!(until.is_none_or(|until| until > id && range.int_run(until - 1).0 == within), "{id} in {i}");
            }
            assert!(ranges.iter().all(|range| range.meets(&Span::default())));
        }
        let ranges = PatientRange::between(&["10", "9"].map(|id| PatientId::Text(id.into())));
        for (id, expect) in [("", 0), ("1", 0), ("10", 1), ("1000", 1), ("9", 2), ("é", 2)] {
            for (i, range) in ranges.iter().enumerate() {
                assert_eq!(range.has_text(id), i == expect, "{id} in {i}");
            }
        }
        assert!(PatientRange::between(&[])[0].int_run(3).0 && PatientRange::between(&[])[0].has_text("3"));
        assert!(!ranges.iter().any(|range| range.int_run(3).0), "the kinds differ");
    }

    #[test]
    fn a_range_meets_a_span_that_reaches_into_it() {
        let span =
            |lowest, highest| Span { lowest: Some(PatientId::Int(lowest)), highest: Some(PatientId::Int(highest)) };
        let ranges = PatientRange::between(&[PatientId::Int(10), PatientId::Int(20)]);
        for (lowest, highest, expect) in [
            (1, 9, [true, false, false]),
            (1, 10, [true, true, false]),
            (10, 19, [false, true, false]),
            (12, 20, [false, true, true]),
            (20, 90, [false, false, true]),
            (1, 90, [true, true, true]),
        ] {
            assert_eq!(
                [0, 1, 2].map(|i: usize| ranges[i].meets(&span(lowest, highest))),
                expect,
                "{lowest} to {highest}"
            );
        }
    }
}
