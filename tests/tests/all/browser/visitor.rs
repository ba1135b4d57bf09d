//! A person at a browser: what they open, press and read, and what must hold of any page that they see.

use fantoccini::{
    Client, Locator,
    actions::{InputSource, KeyAction, KeyActions},
    elements::Element,
    key::Key,
};
use serde_json::{Value, json};

use super::driver::{Driver, Settings, WITHIN};

const AXE: &str = include_str!("../../../testdata/axe/axe.min.js");

/// What is wrong with the words of a page in `arguments[0]`, of what has a language: headings, labels, buttons, the menu.
const FOREIGN: &str = include_str!("foreign.js");

/// Somebody with a browser of their own.
pub(super) struct Visitor<'d> {
    driver: &'d Driver,
    client: Client,
    origin: String,
}

impl<'d> Visitor<'d> {
    /// Opens a browser for somebody who will visit pages of `origin`.
    pub(super) async fn new(driver: &'d Driver, settings: Settings, origin: &str) -> Self {
        Self { driver, client: driver.open(settings).await, origin: origin.into() }
    }

    /// Closes the browser.
    pub(super) async fn leave(self) {
        self.client.close().await.unwrap();
    }

    /// Visits another site's pages from now on.
    pub(super) fn moves_to(&mut self, origin: &str) {
        self.origin = origin.into();
    }

    /// Types an address into the browser.
    pub(super) async fn visit(&self, path: &str) {
        self.client.goto(&format!("{}{path}", self.origin)).await.unwrap_or_else(|e| panic!("visiting {path}: {e}"));
    }

    /// The path, with its query, of the page that is shown.
    pub(super) async fn path(&self) -> String {
        let url = self.client.current_url().await.unwrap();
        url.query().map_or(url.path().into(), |query| format!("{}?{query}", url.path()))
    }

    /// The element of a CSS selector, when it is there.
    pub(super) async fn find(&self, css: &str) -> Element {
        let found = self.client.wait().at_most(WITHIN).for_element(Locator::Css(css)).await;
        match found {
            Ok(element) => element,
            Err(error) => panic!("{css} is not on {}: {error}\n{}", self.path().await, self.words().await),
        }
    }

    /// The visible words of an element.
    pub(super) async fn text(&self, css: &str) -> String {
        self.find(css).await.text().await.unwrap()
    }

    /// The visible words of the page.
    pub(super) async fn words(&self) -> String {
        match self.client.find(Locator::Css("body")).await {
            Ok(body) => body.text().await.unwrap_or_default(),
            Err(error) => error.to_string(),
        }
    }

    /// Waits until the page says `part`.
    pub(super) async fn reads(&self, part: &str) {
        let until = std::time::Instant::now() + WITHIN;
        loop {
            let words = self.words().await;
            if words.contains(part) {
                return;
            }
            assert!(std::time::Instant::now() < until, "{part:?} is not on {}:\n{words}", self.path().await);
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    /// Presses what a CSS selector names.
    pub(super) async fn press(&self, css: &str) {
        self.find(css).await.click().await.unwrap_or_else(|e| panic!("pressing {css}: {e}"));
    }

    /// Follows the first link whose words have `part`.
    pub(super) async fn follow(&self, part: &str) {
        let path = format!("//main//a[contains(., '{part}')]");
        match self.client.wait().at_most(WITHIN).for_element(Locator::XPath(&path)).await {
            Ok(link) => link.click().await.unwrap(),
            Err(_) => panic!("no link {part:?} on {}:\n{}", self.path().await, self.words().await),
        }
    }

    /// Presses what an XPath names.
    pub(super) async fn press_path(&self, path: &str) {
        match self.client.wait().at_most(WITHIN).for_element(Locator::XPath(path)).await {
            Ok(element) => element.click().await.unwrap(),
            Err(_) => panic!("no {path} on {}:\n{}", self.path().await, self.words().await),
        }
    }

    /// Signs in, wherever that leads.
    pub(super) async fn sign_in(&self, token: &str) {
        if !self.path().await.starts_with("/login") {
            self.visit("/login").await;
        }
        self.fill("#token", token).await;
        self.press("main form button[type=submit]").await;
        self.find(".who").await;
    }

    /// Signs out.
    pub(super) async fn sign_out(&self) {
        self.press("form.logout button").await;
        self.find("a[href='/login']").await;
    }

    /// Writes into a field, over what it held.
    pub(super) async fn fill(&self, css: &str, text: &str) {
        let field = self.find(css).await;
        field.clear().await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    /// Chooses from a list by the value of the choice.
    pub(super) async fn choose(&self, css: &str, value: &str) {
        self.find(css).await.select_by_value(value).await.unwrap_or_else(|e| panic!("choosing {value} of {css}: {e}"));
    }

    /// What a script of the test says of the page. (The page's own policy does not bind it.)
    pub(super) async fn ask(&self, script: &str, args: Vec<Value>) -> Value {
        self.client.execute(script, args).await.unwrap()
    }

    /// What a script of the test says once it is done.
    pub(super) async fn later(&self, script: &str) -> Value {
        self.client.execute_async(script, vec![]).await.unwrap()
    }

    /// The cells of each row of a table, its head first.
    pub(super) async fn table(&self, css: &str) -> Vec<Vec<String>> {
        self.find(css).await;
        let script =
            "return [...document.querySelector(arguments[0]).rows].map(r => [...r.cells].map(c => c.innerText.trim()))";
        serde_json::from_value(self.ask(script, vec![css.into()]).await).unwrap()
    }

    /// Presses one key of the keyboard.
    pub(super) async fn key(&self, key: Key) {
        let value = char::from(key);
        let keys = KeyActions::new("keyboard".into()).then(KeyAction::Down { value }).then(KeyAction::Up { value });
        self.client.perform_actions(keys).await.unwrap();
    }

    /// Types with the keyboard into whatever has the focus.
    pub(super) async fn types(&self, text: &str) {
        self.client.active_element().await.unwrap().send_keys(text).await.unwrap();
    }

    /// What chromedriver has and the standard has not.
    async fn command(&self, path: &str, body: &Value) -> Value {
        let session = self.client.session_id().await.unwrap().unwrap();
        let answer = self.driver.command(&format!("POST /session/{session}/{path}"), body).unwrap();
        assert!(answer.get("error").is_none(), "{path}: {answer}");
        answer
    }

    /// What the browser complained of since it was last asked: a script, the policy, what was not found.
    async fn complaints(&self) -> Value {
        let all = self.command("se/log", &json!({"type": "browser"})).await;
        all.as_array().unwrap().iter().filter(|c| c["level"] == "SEVERE").map(|c| c["message"].clone()).collect()
    }

    /// Fails when the browser complained since it was last asked.
    pub(super) async fn no_complaint(&self) {
        assert_eq!(self.complaints().await, json!([]), "{}", self.path().await);
    }

    /// Forgets what the browser complained of, after a page that must be refused.
    pub(super) async fn complaints_expected(&self) {
        self.command("se/log", &json!({"type": "browser"})).await;
    }

    /// Makes the page so wide and high, in CSS pixels; 0 is the window's own size.
    async fn size(&self, width: u64, height: u64) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        let override_ = json!({"cmd": "Emulation.setDeviceMetricsOverride", "params": size});
        self.command("goog/cdp/execute", &override_).await;
    }

    /// What must hold of every page in either language and does not; the picture of it is kept as `name`.
    pub(super) async fn faults(&self, name: &str, language: &str) -> Vec<String> {
        let axe = "const done = arguments[arguments.length - 1];
            axe.run(document, { resultTypes: ['violations'] }).then(
                r => done(r.violations.filter(v => v.impact === 'serious' || v.impact === 'critical').map(
                    v => ({ rule: v.id, help: v.help, elements: v.nodes.map(n => n.html.slice(0, 300)) }))),
                e => done([String(e)]));";
        let wide = "const width = document.documentElement.scrollWidth;
            if (width <= 320) return [];
            const wide = [...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > 321);
            return [width, ...wide.slice(0, 6).map(e => e.outerHTML.slice(0, 160))];";
        let complaints = self.complaints().await;
        let foreign = self.ask(FOREIGN, vec![language.into()]).await;
        self.ask(AXE, vec![]).await;
        let violations = self.later(axe).await;
        self.size(320, 800).await;
        let sideways = self.ask(wide, vec![]).await;
        self.shot(&format!("{name}.{language}.narrow"), 320).await;
        self.shot(&format!("{name}.{language}"), 1100).await;
        self.size(0, 0).await;
        let at = format!("{name} ({language}) at {}", self.path().await);
        let found = [
            ("the browser complains", complaints),
            ("words in another language", foreign),
            ("axe-core", violations),
            ("it scrolls sideways at 320 px", sideways),
        ];
        let found = found.into_iter().filter(|(_, found)| *found != json!([]));
        found.map(|(what, found)| format!("{at}: {what}: {found:#}")).collect()
    }

    /// Keeps a picture of the whole page in the folder `SEKISHO_SHOTS`, if that is set.
    async fn shot(&self, name: &str, width: u64) {
        let Some(folder) = shots() else { return };
        self.size(width, 800).await;
        let height = self.ask("return document.documentElement.scrollHeight", vec![]).await.as_u64().unwrap();
        self.size(width, height.clamp(300, 8000)).await;
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("{name}.png")), self.client.screenshot().await.unwrap()).unwrap();
    }
}

#[expect(clippy::disallowed_methods, reason = "the edge of a test: where its pictures go")]
fn shots() -> Option<std::path::PathBuf> {
    std::env::var_os("SEKISHO_SHOTS").map(Into::into)
}
