//! What data users see.

use std::sync::Arc;

use axum::Router;

use super::Pages;

/// The routes.
pub fn routes() -> Router<Arc<Pages>> {
    Router::new()
}
