//! Why a request over HTTP failed, in words for people.

/// What rustls says of bytes that are no TLS.
const NO_TLS: &str = "InvalidContentType";

/// The causes of an error, without reqwest's own text: that names an address, which the message has already or must not
/// have.
pub(crate) fn cause(error: &reqwest::Error) -> String {
    let mut text = Vec::new();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text.push(inner.to_string());
        source = inner.source();
    }
    if text.iter().any(|part| part.contains(NO_TLS)) {
        return "what answers there does not speak TLS".to_owned();
    }
    if text.is_empty() { error.to_string() } else { text.join(": ") }
}
