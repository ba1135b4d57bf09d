//! chromedriver as a child of the test, and the browsers that it opens.
//!
//! Promises: whatever becomes of the test, no chromedriver and no Chromium outlives it; every wait has a limit, and none is a
//! sleep of a fixed length. What the WebDriver standard has no word for (the console, a width of 320 px) is asked of
//! chromedriver itself, by HTTP. Deliberately absent: a download of either program; without them the walks are passed over.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use fantoccini::{Client, ClientBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};

/// How long Chromium may take to start, a page to load, an element to appear: generous, since the machine may be busy.
pub(super) const WITHIN: Duration = Duration::from_secs(90);

/// A running chromedriver.
pub(super) struct Driver {
    child: Child,
    address: SocketAddr,
    /// Profiles and downloads.
    dir: tempfile::TempDir,
}

/// How a browser is set up by its owner.
#[derive(Clone, Copy)]
pub(super) struct Settings {
    /// The language that it asks pages for.
    pub(super) language: &'static str,
    /// Whether it runs scripts of pages.
    pub(super) scripts: bool,
}

impl Driver {
    /// Starts it on a port of its own choice; none when it or Chromium is not installed.
    pub(super) fn start() -> Option<Self> {
        let spawned = Command::new("chromedriver").arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let Ok(mut child) = spawned else {
            eprintln!("skipped: chromedriver is not installed (Debian's packages chromium and chromium-driver)");
            return None;
        };
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = |line: String| line.split_once("successfully on port ")?.1.trim_end_matches('.').parse().ok();
        let port: u16 = lines.by_ref().map_while(Result::ok).find_map(port).expect("chromedriver announces its port");
        // It goes on writing; a full pipe would stop it.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self { child, address: ([127, 0, 0, 1], port).into(), dir: tempfile::tempdir().unwrap() })
    }

    /// Asks chromedriver itself. (It keeps the connection open whatever it is told: the answer is as long as it says.)
    pub(super) fn command(&self, line: &str, body: &Value) -> std::io::Result<Value> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(WITHIN))?;
        let (address, body) = (self.address, body.to_string());
        write!(stream, "{line} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
        let mut answer = BufReader::new(stream);
        let mut length = 0;
        loop {
            let mut header = String::new();
            answer.read_line(&mut header)?;
            match header.trim_end().split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.trim().parse().unwrap()
                }
                None if header.trim_end().is_empty() => break,
                Some(_) | None => {}
            }
        }
        let mut body = vec![0; length];
        answer.read_exact(&mut body)?;
        Ok(serde_json::from_slice::<Value>(&body)?["value"].take())
    }

    /// Where its browsers put what is downloaded.
    pub(super) fn downloads(&self) -> &Path {
        self.dir.path()
    }

    /// Opens a browser with a profile of its own.
    pub(super) async fn open(&self, settings: Settings) -> Client {
        let profile = tempfile::tempdir_in(&self.dir).unwrap().keep();
        let mut args = vec![
            "--headless=new".to_string(),
            "--no-sandbox".into(),
            "--disable-gpu".into(),
            "--disable-dev-shm-usage".into(),
            "--disable-background-networking".into(),
            "--disable-component-update".into(),
            "--no-first-run".into(),
            "--hide-scrollbars".into(),
            "--window-size=1100,900".into(),
            format!("--user-data-dir={}", profile.display()),
            format!("--lang={}", settings.language),
        ];
        args.push(format!("--accept-lang={}", settings.language));
        let mut preferences = json!({
            "intl.accept_languages": settings.language,
            "download.default_directory": self.downloads(),
            "download.prompt_for_download": false,
        });
        if !settings.scripts {
            preferences["profile.managed_default_content_settings.javascript"] = 2.into();
        }
        let capabilities = json!({
            "browserName": "chrome",
            "goog:chromeOptions": { "args": args, "prefs": preferences },
            "goog:loggingPrefs": { "browser": "ALL" },
            "timeouts": { "pageLoad": WITHIN.as_millis(), "script": WITHIN.as_millis() },
        });
        let Value::Object(capabilities) = capabilities else { unreachable!() };
        let mut builder = ClientBuilder::new(HttpConnector::new());
        let url = format!("http://{}", self.address);
        let opened = tokio::time::timeout(WITHIN, builder.capabilities(capabilities).connect(&url)).await;
        opened.expect("Chromium starts in time").expect("Chromium starts")
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // It closes its browsers; killed, it would leave them.
        let _ = self.command("GET /shutdown", &Value::Null);
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
