//! The public pages over the register of one record, with hostile texts in it.

use askama::Template;
use sekisho_protocol::pages::Language;

use super::*;
use crate::{
    pages::SITE,
    use_register::tests::{HOSTILE, register as record},
};

fn visitor(language: Language) -> sekisho_protocol::pages::Visitor {
    sekisho_protocol::pages::Visitor::passing(SITE, language, "/")
}

#[test]
fn rho_is_written_exactly() {
    for (micro, expect) in
        [(0, "0"), (1, "0.000001"), (50_000, "0.05"), (1_000_000, "1"), (200_000_000, "200"), (1_500_000, "1.5")]
    {
        assert_eq!(rho(micro), expect);
    }
}

#[test]
fn a_search_finds_the_uses_that_have_all_its_words_in_either_language() {
    let register = record();
    for (text, state, holder, expect) in [
        ("", "", "", &["application-1", "application-2", "application-3"][..]),
        ("京都大学", "", "", &["application-1"]),
        ("HEALTH institute", "", "", &["application-2", "application-3"]),
        ("health nowhere", "", "", &[]),
        ("医療の改善", "", "", &["application-2"]),
        ("improving", "refused", "", &["application-2"]),
        ("improving", "in_force", "", &[]),
        ("", "", "uji", &["application-1"]),
        ("", "", "uj", &[]),
        ("'; DROP TABLE document; --", "", "", &[]),
    ] {
        let asked =
            register::Asked { text: text.into(), state: state.into(), holder: holder.into(), page: Some(usize::MAX) };
        let page = register::found(&register, &asked, &visitor(Language::En));
        let mut found: Vec<&str> = page.shown.iter().map(|used| used.id.as_str()).collect();
        found.sort_unstable();
        assert_eq!(found, expect, "{text} {state} {holder}");
    }
}

#[test]
fn what_others_wrote_stays_text_and_keeps_its_direction() {
    let register = record();
    for language in [Language::En, Language::Ja] {
        let visitor = visitor(language);
        let asked = register::Asked { text: HOSTILE.into(), ..Default::default() };
        let mut pages = vec![register::found(&register, &asked, &visitor).render().unwrap()];
        for used in &register.uses {
            pages.push(study::of(&register, &used.study, &visitor).unwrap().render().unwrap());
        }
        for page in &pages {
            assert!(
                !page.contains("<img src=x") && !page.contains("</script><") && !page.contains("<b>Health"),
                "{page}"
            );
        }
        let granted = &pages[1];
        assert!(granted.contains("<bdi>&#60;/script&#62;&#60;img src=x onerror=alert(1)&#62;"), "{granted}");
        // The script of ours is all there is, and nothing is styled in place.
        assert!(pages.iter().all(|page| page.matches("<script").count() == 1 && !page.contains(" style=")));
    }
}

#[test]
fn of_a_result_that_waits_only_its_state_is_shown() {
    let register = record();
    let waits = register.uses[0].queries.iter().find(|query| query.output.code == "awaiting").unwrap();
    let digits = waits.result.unwrap().to_string();
    for (named, found) in [(&digits[..], true), (&digits[..12], true), (&digits[..11], false), ("", false)] {
        assert_eq!(release::find(&register, named).is_some(), found, "{named}");
    }
    let (used, query, result) = release::find(&register, &digits).unwrap();
    assert!(!is_open(query));
    for language in [Language::En, Language::Ja] {
        let page = visitor(language).page("Release");
        let text = release::ReleasePage { page, used, query, result, way: None, bundle: false }.render().unwrap();
        assert!(text.contains("chip-wait"), "{text}");
        for hidden in ["SELECT", "nara", "tokyo", "0.002", "bundle.zip", "<svg", "ethicist"] {
            assert!(!text.contains(hidden), "{hidden}: {text}");
        }
    }
}
