//! Whom an exact release is about, so that two releases of nearly the same patients are noticed: 64 bits a patient, under a key
//! of the hospital's own.
//!
//! Never printed and never sent: whoever holds the key and a patient's identifier learns whether the patient is in it. Of
//! 10^6 patients two share their 64 bits with a probability below 10^-7, and then the cohort counts one less.

use std::cmp::Ordering;

use sekisho_protocol::digest::Digest;

use crate::fold::RawCells;

/// A hospital's key for cohorts.
pub struct CohortKey([u8; 32]);

impl CohortKey {
    /// A key of these bytes: secret, and the same for all cohorts of a hospital.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

/// The patients of an exact release: those who have a row after its WHERE.
pub struct Cohort {
    /// Sorted, each once.
    patients: Vec<u64>,
}

/// Why bytes are no cohort.
#[derive(Debug, thiserror::Error)]
#[error("not a cohort: it is not sorted numbers of 8 bytes")]
pub struct NotACohort;

impl RawCells {
    /// Whom the cells are of; none of a noised plan.
    pub fn cohort(&self, key: &CohortKey) -> Option<Cohort> {
        let mut patients = Vec::new();
        for part in &self.parts {
            let own = part.contributions.as_ref()?.patients();
            patients.extend(own.iter().map(|patient| keyed(key, *patient)));
        }
        patients.sort_unstable();
        patients.dedup();
        Some(Cohort { patients })
    }
}

/// A secret prefix of fixed length and a truncated SHA-256 over parts with their lengths: a keyed hash.
fn keyed(key: &CohortKey, patient: u64) -> u64 {
    first_bytes(&Digest::of_parts(&[b"sekisho cohort v1", &key.0, &patient.to_le_bytes()]))
}

/// The first 64 bits of a digest.
pub(crate) fn first_bytes(digest: &Digest) -> u64 {
    let mut first = [0; 8];
    first.iter_mut().zip(digest.as_bytes()).for_each(|(to, from)| *to = *from);
    u64::from_le_bytes(first)
}

impl Cohort {
    /// How many patients.
    pub fn len(&self) -> u64 {
        self.patients.len() as u64
    }

    /// Whether it is of nobody.
    pub fn is_empty(&self) -> bool {
        self.patients.is_empty()
    }

    /// How many patients are in exactly one of the two.
    pub fn difference(&self, other: &Self) -> u64 {
        let (mut own, mut others) = (self.patients.iter().peekable(), other.patients.iter().peekable());
        let mut different = 0;
        loop {
            let order = match (own.peek(), others.peek()) {
                (Some(a), Some(b)) => a.cmp(b),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return different,
            };
            if order.is_le() {
                own.next();
            }
            if order.is_ge() {
                others.next();
            }
            different += u64::from(order.is_ne());
        }
    }

    /// As it is stored: 8 bytes a patient.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.patients.iter().flat_map(|patient| patient.to_le_bytes()).collect()
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// # Errors
    /// When the bytes are anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NotACohort> {
        let chunks = bytes.chunks_exact(8);
        if !chunks.remainder().is_empty() {
            return Err(NotACohort);
        }
        let patients: Vec<u64> = chunks.filter_map(|c| <[u8; 8]>::try_from(c).ok()).map(u64::from_le_bytes).collect();
        if patients.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(NotACohort);
        }
        Ok(Self { patients })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    static_assertions::assert_not_impl_any!(Cohort: std::fmt::Debug, Clone, serde::Serialize);
    static_assertions::assert_not_impl_any!(CohortKey: std::fmt::Debug, Clone, serde::Serialize);

    fn cohort(patients: &BTreeSet<u64>) -> Cohort {
        Cohort { patients: patients.iter().copied().collect() }
    }

    proptest! {
        #[test]
        fn the_difference_is_how_many_are_in_one_of_two(
            a in prop::collection::btree_set(0_u64..40, 0..40),
            b in prop::collection::btree_set(0_u64..40, 0..40),
        ) {
            let expect = a.symmetric_difference(&b).count() as u64;
            prop_assert_eq!(cohort(&a).difference(&cohort(&b)), expect);
            prop_assert_eq!(cohort(&b).difference(&cohort(&a)), expect);
            let again = Cohort::from_bytes(&cohort(&a).to_bytes()).unwrap();
            prop_assert_eq!(again.patients, cohort(&a).patients);
        }
    }

    #[test]
    fn other_bytes_are_no_cohort() {
        let bytes = |numbers: &[u64]| numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<_>>();
        assert!(Cohort::from_bytes(&[]).unwrap().is_empty());
        assert_eq!(Cohort::from_bytes(&bytes(&[1, 2])).unwrap().len(), 2);
        for wrong in [vec![0; 7], bytes(&[2, 1]), bytes(&[1, 1])] {
            assert!(Cohort::from_bytes(&wrong).is_err(), "{wrong:?}");
        }
    }
}
