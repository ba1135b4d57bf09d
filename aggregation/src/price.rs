//! How a query's cost is divided over what it measures: fixed before the charge, from the text, the bounds and the terms alone.

use sekisho_protocol::{
    permit::Mechanism,
    query::Terms,
    refusal::{Code, Refusal},
    units::{AttoDelta, MicroRho},
};

use crate::{
    accounting::share,
    plan::{Output, Part, Price},
};

/// A number that 1 to 6 measures of one output divide.
const PARTS_OF_OUTPUT: u64 = 60;

impl Output {
    /// The measures that it is computed from.
    pub(crate) fn measures(&self) -> Vec<usize> {
        match self {
            Self::One { measure } | Self::Quantile { measure, .. } | Self::Extreme { measure, .. } => vec![*measure],
            Self::Patients { measures } => measures.clone(),
            Self::Avg { sum, count } => vec![*sum, *count],
            Self::Moments { count, sums, products, .. } => {
                std::iter::once(count).chain(sums).chain(products).copied().collect()
            }
            Self::Grouping { .. } => Vec::new(),
        }
    }
}

/// Gives every measure its price, and every private key its delta.
///
/// Evenly over measures, unless the terms have shares: then each aggregate's share is divided evenly over its measures, and a
/// measure that nobody asked for (the presets' count of patients) gets the mean of the others.
///
/// # Errors
/// `terms` when shares are not as many as aggregates, or delta is asked for and no key is private; `budget_query` when a measure
/// would get nothing.
pub(crate) fn price(
    parts: &mut [Part],
    micro_rho: MicroRho,
    mechanism: Mechanism,
    terms: &Terms,
) -> Result<(), Refusal> {
    let asked: Vec<(usize, Vec<usize>)> = parts
        .iter()
        .enumerate()
        .flat_map(|(p, part)| part.outputs.iter().map(move |o| (p, o.measures())))
        .filter(|(_, measures)| !measures.is_empty())
        .collect();
    if !terms.shares.is_empty() && terms.shares.len() != asked.len() {
        let detail = format!("{} shares for {} aggregates: write one for each", terms.shares.len(), asked.len());
        return Err(Refusal::new(Code::Terms, detail));
    }
    let total = match mechanism {
        Mechanism::Gaussian => micro_rho.get(),
        // m millionths of epsilon cost m²/(2·10^6) micro-rho.
        Mechanism::Laplace => (2_000_000 * u128::from(micro_rho.get())).isqrt().try_into().unwrap_or(u64::MAX),
    };
    let bite = total / 100 * u64::from(terms.bite_percent.unwrap_or(0));
    let mut weights: Vec<Vec<u64>> = parts.iter().map(|p| vec![0; p.measures.len()]).collect();
    for (i, (part, measures)) in asked.iter().enumerate() {
        let share = terms.shares.get(i).map_or(1, |share| u64::from(*share) * PARTS_OF_OUTPUT / measures.len() as u64);
        for measure in measures {
            let weight = &mut weights[*part][*measure];
            *weight = if terms.shares.is_empty() { 1 } else { weight.saturating_add(share.max(1)) };
        }
    }
    let given = weights.iter().flatten().filter(|w| **w > 0).count().max(1) as u64;
    let mean = (weights.iter().flatten().sum::<u64>() / given).max(1);
    let biting = |part: &Part, i: usize| part.bites.iter().any(|(measure, _)| *measure == i);
    for (part, weights) in parts.iter().zip(&mut weights) {
        for (_, weight) in weights.iter_mut().enumerate().filter(|(i, w)| **w == 0 && !biting(part, *i)) {
            *weight = mean;
        }
    }
    let whole: u64 = weights.iter().flatten().sum();
    let bites: u64 = weights.iter().flatten().filter(|w| **w == 0).count() as u64;
    for (part, weights) in parts.iter_mut().zip(&weights) {
        for (measure, weight) in part.measures.iter_mut().zip(weights) {
            let share = match *weight {
                0 => share(bite, 1, bites),
                weight => share(total - bite, weight, whole),
            };
            let share = share.ok_or_else(|| {
                let detail = format!("{micro_rho} cannot be divided over {given} measures; name more");
                Refusal::new(Code::BudgetQuery, detail)
            })?;
            measure.price = match mechanism {
                Mechanism::Gaussian => Price::Rho(MicroRho::try_from(share).unwrap_or(MicroRho::MAX)),
                Mechanism::Laplace => Price::Epsilon(share),
            };
        }
    }
    let named = parts.iter_mut().filter_map(|p| p.names.as_mut()).collect::<Vec<_>>();
    let each = terms.atto_delta.get().checked_div(named.len() as u64).unwrap_or(0);
    if named.is_empty() && !terms.atto_delta.is_zero() {
        return Err(Refusal::new(Code::Terms, "a delta is asked for, and every group key is public"));
    }
    for (_, delta) in named {
        *delta = AttoDelta::try_from(each).unwrap_or(AttoDelta::MAX);
    }
    Ok(())
}
