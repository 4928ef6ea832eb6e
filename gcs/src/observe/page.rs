//! The page that shows the group to a person: one document, its style and its program, as they lie in `page/`. They are part of the binary; nothing is
//! fetched from elsewhere, and a browser is told so ([`POLICY`]). The page reads `/state` once a second and changes nothing.

pub struct Part {
    pub path: &'static str,
    pub content_type: &'static str,
    pub text: &'static str,
}

pub const PARTS: [Part; 4] = [
    Part { path: "/", content_type: "text/html; charset=utf-8", text: include_str!("page/index.html") },
    Part { path: "/page.css", content_type: "text/css; charset=utf-8", text: include_str!("page/page.css") },
    Part { path: "/page.js", content_type: SCRIPT, text: include_str!("page/page.js") },
    Part { path: "/charts.js", content_type: SCRIPT, text: include_str!("page/charts.js") },
];

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Nothing from anywhere but here, no text that is run, and no frame of somebody else's around it.
pub const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                          base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub fn part(path: &str) -> Option<&'static Part> {
    PARTS.iter().find(|part| part.path == path)
}
