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

use self::{
    driver::{Driver, Settings},
    visitor::Visitor,
    world::World,
};

const ENGLISH: Settings = Settings { language: "en", scripts: true };
const JAPANESE: Settings = Settings { language: "ja", scripts: true };

#[tokio::test(flavor = "multi_thread")]
async fn each_role_reaches_its_own_pages_and_people_walk_them_in_a_browser() {
    let began = std::time::Instant::now();
    let done = |what: &str| eprintln!("[{:5.1} s] {what}", began.elapsed().as_secs_f32());
    let world = World::build();
    done("the network is there");
    roles::walk(&world);
    done("each role on each route");
    let Some(driver) = Driver::start() else { return };
    let origin = format!("http://{}", world.pages);
    let console = format!("http://{}", world.console);

    let mut visitor = Visitor::new(&driver, ENGLISH, &origin).await;
    people::public(&visitor, &driver, &world).await;
    done("public register, study, release, lineage, bundle");
    people::regulator(&visitor, &world).await;
    done("regulator");
    people::member(&visitor, &world).await;
    done("member of the committee");
    people::data_user(&visitor, &world).await;
    done("data user");
    keyboard::walk(&visitor, &world).await;
    done("keyboard only");
    visitor.moves_to(&console);
    people::hospital(&visitor, &world).await;
    done("hospital");
    hostile::walk(&mut visitor, &world).await;
    done("hostile words");
    visitor.leave().await;

    let without = Visitor::new(&driver, Settings { scripts: false, ..ENGLISH }, &origin).await;
    people::without_scripts(&without, &world).await;
    without.leave().await;
    done("without JavaScript");
    for settings in [ENGLISH, JAPANESE] {
        let mut visitor = Visitor::new(&driver, settings, &origin).await;
        gallery::walk(&mut visitor, settings.language, &world).await;
        visitor.leave().await;
        done(&format!("every page in {}", settings.language));
    }
}
