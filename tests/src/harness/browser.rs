//! A real browser, driven as a person would drive it: Debian's chromium, by the WebDriver protocol.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fantoccini::elements::Element;
use fantoccini::error::CmdError;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::{ports, wait};

/// A page is there at once, what it shows follows within seconds.
const WITHIN: Duration = Duration::from_secs(60);

/// Ended when it is dropped, with its driver.
pub struct Browser {
    runtime: Runtime,
    client: Option<Client>,
    driver: Child,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// `prefers_dark`: what the reader's system says of itself.
    pub fn start(prefers_dark: bool) -> Browser {
        let port = ports::free_one();
        let profile = tempfile::tempdir().expect("a directory for the browser");
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .env("HOME", profile.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("chromedriver (Debian's chromium-driver): {error}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut browser = Browser { runtime, client: None, driver, _profile: profile };
        browser.client = Some(browser.connect(port, prefers_dark));
        browser
    }

    fn connect(&self, port: u16, prefers_dark: bool) -> Client {
        let scheme = format!("--blink-settings=preferredColorScheme={}", if prefers_dark { 0 } else { 1 });
        // Tests run as root, under whom its sandbox does not start.
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--window-size=1280,1000",
            &scheme,
        ];
        let wanted = json!({ "goog:chromeOptions": { "args": arguments } });
        let Value::Object(wanted) = wanted else { unreachable!("an object is written above") };
        let url = format!("http://127.0.0.1:{port}");
        let (client, _) = wait::until("the browser", WITHIN, || {
            let mut builder = ClientBuilder::new(HttpConnector::new());
            let connecting = builder.capabilities(wanted.clone()).connect(&url);
            self.runtime.block_on(connecting).map_err(|error| error.to_string())
        });
        client
    }

    fn run<T>(&self, work: impl AsyncFnOnce(&Client) -> Result<T, CmdError>) -> T {
        let client = self.client.as_ref().expect("it is connected");
        self.runtime.block_on(work(client)).unwrap_or_else(|error| panic!("the browser: {error}"))
    }

    pub fn open(&self, url: &str) {
        self.run(async |client| client.goto(url).await);
    }

    /// The text of what the selector finds, as it is shown.
    pub fn text(&self, selector: &str) -> String {
        self.run(async |client| client.find(Locator::Css(selector)).await?.text().await)
    }

    pub fn click(&self, selector: &str) {
        self.run(async |client| {
            let element: Element = client.find(Locator::Css(selector)).await?;
            element.click().await
        });
    }

    /// Keys, to whatever has the focus.
    pub fn press(&self, keys: &str) {
        self.run(async |client| client.active_element().await?.send_keys(keys).await);
    }

    /// The value of an expression.
    pub fn value(&self, expression: &str) -> Value {
        self.run(async |client| client.execute(&format!("return {expression}"), Vec::new()).await)
    }

    /// Until what the selector finds shows this.
    pub fn shows(&self, selector: &str, text: &str) {
        let quoted = serde_json::to_string(selector).expect("a text");
        let expression = format!("document.querySelector({quoted})?.textContent ?? 'nothing'");
        wait::until(&format!("{selector} shows {text:?}"), WITHIN, || match self.value(&expression) {
            Value::String(found) if found.contains(text) => Ok(()),
            found => Err(format!("{found}")),
        });
    }

    pub fn screenshot(&self, file: &Path) {
        let png = self.run(async |client| client.screenshot().await);
        std::fs::write(file, png).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            // Its browser ends with the session; a driver that cannot end it is killed below.
            let _ = self.runtime.block_on(client.close());
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
