//! Signing in and a search with the keyboard alone: the focus is always to be seen, and goes on in the order of the page.

use fantoccini::key::Key;
use serde_json::{Value, json};

use super::{
    visitor::Visitor,
    world::{STUDY, World},
};

/// What has the focus: whether a person sees it, whether it comes after what had it before, and what it is.
const FOCUS: &str = "const now = document.activeElement, before = window.focusedBefore;
    window.focusedBefore = now;
    const style = getComputedStyle(now), box = now.getBoundingClientRect();
    const seen = now.matches(':focus-visible') && box.width > 0 && box.height > 0 && box.bottom > 0 &&
        (style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2 || style.boxShadow !== 'none');
    // A date has several stops of its own.
    const after = !before || before === now || !!(before.compareDocumentPosition(now) & Node.DOCUMENT_POSITION_FOLLOWING);
    return { seen, after, id: now.id, tag: now.tagName, words: now.innerText.trim().slice(0, 60),
        html: now.outerHTML.slice(0, 200) };";

/// Presses Tab until what has this id, or these words, has the focus.
async fn tab_to(visitor: &Visitor<'_>, what: &str) -> Vec<Value> {
    let mut stops: Vec<Value> = Vec::new();
    loop {
        visitor.key(Key::Tab).await;
        let focus = visitor.ask(FOCUS, vec![]).await;
        assert_eq!((&focus["seen"], &focus["after"]), (&json!(true), &json!(true)), "after {stops:#?}: {focus:#}");
        let there = focus["id"] == what || focus["words"] == what;
        stops.push(focus);
        if there {
            return stops;
        }
        assert!(stops.len() < 40, "{what} is not reached: {stops:#?}");
    }
}

/// Signs in, finds a study, opens it, and signs out.
pub(super) async fn walk(visitor: &Visitor<'_>, world: &World) {
    visitor.visit("/login?next=/regulator").await;
    let stops = tab_to(visitor, "token").await;
    assert_eq!(stops[0]["words"], "Skip to content", "the first stop is the way past the menu");
    visitor.types(&world.tokens["mhlw"]).await;
    visitor.key(Key::Enter).await;
    visitor.find(".who").await;
    assert_eq!(visitor.path().await, "/regulator");

    // The way past the menu leads past the menu.
    tab_to(visitor, "Skip to content").await;
    visitor.key(Key::Enter).await;
    let stops = tab_to(visitor, "study").await;
    assert!(stops.iter().all(|stop| stop["words"] != "Sign out"), "{stops:#?}");
    visitor.types(STUDY).await;
    visitor.key(Key::Enter).await;
    visitor.reads("Export all as CSV").await;
    assert!(visitor.path().await.contains("study=beds"));
    tab_to(visitor, STUDY).await;
    visitor.key(Key::Enter).await;
    visitor.reads("Privacy budget, granted and spent").await;
    assert_eq!(visitor.path().await, "/regulator/studies/beds");
    tab_to(visitor, "Sign out").await;
    visitor.key(Key::Enter).await;
    visitor.find("a[href='/login']").await;
}
