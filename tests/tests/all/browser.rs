//! The pages of coordinator and hospital as people meet them: over HTTP by each role, then in a real browser.
//!
//! One network serves all walks, since it is slow to build. With `SEKISHO_SHOTS=FOLDER` a picture of every page in both languages,
//! wide and narrow, is kept. Without chromedriver the walks are passed over, and what needs no browser is tested all the same.

mod driver;
mod gallery;
mod hostile;
mod keyboard;
mod people;
mod roles;
mod visitor;
mod world;

use std::panic::AssertUnwindSafe;

use futures::FutureExt;

use self::{
    driver::{Driver, Settings},
    visitor::Visitor,
    world::World,
};

const ENGLISH: Settings = Settings { language: "en", scripts: true };
const JAPANESE: Settings = Settings { language: "ja", scripts: true };

/// Walks to the end, or to where something is not as it must be; what comes after it is walked all the same.
async fn walk(what: &str, failed: &mut Vec<String>, walk: impl Future<Output = ()>) {
    let began = std::time::Instant::now();
    let ended = AssertUnwindSafe(walk).catch_unwind().await;
    eprintln!("{what}: {} after {:.1} s", if ended.is_ok() { "well" } else { "FAILED" }, began.elapsed().as_secs_f32());
    if ended.is_err() {
        failed.push(what.into());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_reaches_its_own_pages_and_people_walk_them_in_a_browser() {
    let world = World::build();
    let mut failed = Vec::new();
    walk("each role on each route", &mut failed, async { roles::walk(&world) }).await;
    if let Some(driver) = Driver::start() {
        in_a_browser(&driver, &world, &mut failed).await;
    }
    walk("guesses", &mut failed, async { roles::guesses(&world) }).await;
    assert!(failed.is_empty(), "not as it must be, see above: {failed:?}");
}

async fn in_a_browser(driver: &Driver, world: &World, failed: &mut Vec<String>) {
    let (origin, console) = (format!("http://{}", world.pages), format!("http://{}", world.console));
    let mut visitor = Visitor::new(driver, ENGLISH, &origin).await;
    walk("anybody", failed, people::public(&visitor, driver, world)).await;
    walk("a regulator", failed, people::regulator(&visitor, world)).await;
    walk("a member of the committee", failed, people::member(&visitor, world)).await;
    walk("a data user", failed, people::data_user(&visitor, world)).await;
    walk("the keyboard alone", failed, keyboard::walk(&visitor, world)).await;
    visitor.moves_to(&console);
    walk("a hospital", failed, people::hospital(&visitor, world)).await;
    walk("hostile words", failed, hostile::walk(&mut visitor, world)).await;
    visitor.leave().await;

    let without = Visitor::new(driver, Settings { scripts: false, ..ENGLISH }, &origin).await;
    walk("without JavaScript", failed, people::without_scripts(&without, world)).await;
    without.leave().await;
    for settings in [ENGLISH, JAPANESE] {
        let mut visitor = Visitor::new(driver, settings, &origin).await;
        let what = format!("every page, {}", settings.language);
        walk(&what, failed, gallery::walk(&mut visitor, settings.language, world)).await;
        visitor.leave().await;
    }
}
