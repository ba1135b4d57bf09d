//! What a query's own terms make of the schema's and the permit's bounds: narrower, never wider.

use sekisho_protocol::{
    permit::{Permit, Preset},
    query::{NarrowBounds, Terms},
    refusal::{Code, Refusal},
    schema::Schema,
    units::AttoDelta,
};

/// How a part's contributions are bounded.
pub(crate) struct Limits {
    pub(crate) rows_per_patient: u64,
    pub(crate) groups_per_patient: u64,
    pub(crate) preset: Preset,
    /// What private keys may cost; zero when there may be none.
    pub(crate) atto_delta: AttoDelta,
    /// Measure how much the bounds bite.
    pub(crate) bite: bool,
    /// For an exact plan, in which nothing is bounded but values.
    pub(crate) exact: bool,
}

fn wider(detail: String) -> Refusal {
    Refusal::new(Code::Terms, detail)
}

/// The stricter of the permit's limits and those asked for.
///
/// # Errors
/// `terms` when more is asked for than the permit grants.
pub(crate) fn limits(permit: &Permit, terms: &Terms) -> Result<Limits, Refusal> {
    let narrower = |name: &str, asked: Option<u32>, granted: u32| match asked {
        Some(asked) if asked > granted => Err(wider(format!("{name} {asked} is above the permit's {granted}"))),
        Some(asked) => Ok(asked.into()),
        None => Ok(granted.into()),
    };
    let dp = &permit.dp;
    if terms.atto_delta > dp.atto_delta_per_query {
        let (asked, granted) = (terms.atto_delta.get(), dp.atto_delta_per_query.get());
        return Err(wider(format!("a delta of {asked} atto (10^-18) is above the permit's {granted} a query")));
    }
    Ok(Limits {
        rows_per_patient: narrower("rows_per_patient", terms.rows_per_patient, dp.rows_per_patient)?,
        groups_per_patient: narrower("groups_per_patient", terms.groups_per_patient, dp.groups_per_patient)?,
        preset: permit.disclosure,
        atto_delta: terms.atto_delta,
        bite: terms.bite_percent.is_some(),
        exact: false,
    })
}

/// The limits of an exact plan: every row and every group of a patient counts in full.
pub(crate) fn unbounded(permit: &Permit) -> Limits {
    Limits {
        rows_per_patient: u64::MAX,
        groups_per_patient: u64::MAX,
        preset: permit.disclosure,
        atto_delta: AttoDelta::ZERO,
        bite: false,
        exact: true,
    }
}

/// The schema with the asked bounds in place of its own, where they lie inside.
///
/// # Errors
/// `terms` for an unknown or unbounded column, or bounds that are not inside the schema's.
pub(crate) fn narrowed(schema: &Schema, bounds: &[NarrowBounds]) -> Result<Schema, Refusal> {
    let mut schema = schema.clone();
    for asked in bounds {
        let name = format!("{}.{}", asked.table, asked.column);
        let table = schema.tables.iter_mut().find(|t| t.name == asked.table);
        let column = table.and_then(|t| t.columns.iter_mut().find(|c| c.name == asked.column));
        let column = column.ok_or_else(|| wider(format!("the schema has no column {name}")))?;
        let own = column.fixed_bounds().map_err(wider)?;
        let Some((lo, hi)) = own else {
            return Err(wider(format!("{name} has no bounds in the schema that could be narrowed")));
        };
        column.bounds = Some(asked.bounds.clone());
        let inside = column.fixed_bounds().map_err(wider)?.is_some_and(|(min, max)| lo <= min && max <= hi);
        if !inside {
            let (min, max) = (&asked.bounds.min, &asked.bounds.max);
            return Err(wider(format!("{name}: {min} to {max} is not inside the schema's bounds")));
        }
    }
    Ok(schema)
}
