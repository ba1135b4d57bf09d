//! Points in the code at which a test may stop the process; nothing happens there otherwise.

use std::sync::Arc;

/// What happens at a named point: nothing by default.
#[derive(Clone)]
pub struct Hooks(Arc<dyn Fn(&'static str) + Send + Sync>);

impl Hooks {
    /// Calls `at` with the name of each point that is passed.
    pub fn new(at: impl Fn(&'static str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(at))
    }

    /// Passes the point `name`.
    pub fn at(&self, name: &'static str) {
        (self.0)(name);
    }
}

impl Default for Hooks {
    fn default() -> Self {
        Self::new(|_| {})
    }
}
