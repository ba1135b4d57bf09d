//! The hospital's catalogue: what it declares of its data sets, what it counted of them, and what it published.
//!
//! Promises: a count is a noised release like any other, charged to the patient register under the study `catalogue` before a
//! row is read; it is drawn again on the declared schedule only, and until then the stored release is used; a kill at any point
//! leaves a draw that the next `publish` goes on with, under the same charge; a catalogue is stored whole, with the next number,
//! or not at all; a declaration that is wrong stops before anything is charged.
//!
//! Deliberately absent: any other way to a count, and any look at rows for what is declared (domains, extremes, periods).

mod declaration;
mod own_count;
mod publish;
mod shelf;
mod template;

pub use self::declaration::{Declaration, DeclarationError, MIN_REDRAW_DAYS};
pub use self::own_count::OwnCount;
pub use self::publish::{CatalogueError, Draft, DrawState, Published, TableDraft, draft, publish};
pub use self::shelf::{Draw, Shelf};
pub use self::template::template;
