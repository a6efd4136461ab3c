//! What becomes of a request over HTTP where something is wrong: why it failed, in words for people, and how much of an
//! answer is read.

/// What rustls says of bytes that are no TLS.
const NO_TLS: &str = "InvalidContentType";

/// Why a request failed, in the words of the last cause: `Connection refused (os error 111)`. Those before it only say which
/// layer passed it on, and reqwest's own text names an address, which the message has already or must not have.
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
    if let Some(last) = text.pop() {
        return last;
    }
    let text = error.to_string();
    error.url().map_or_else(|| text.clone(), |url| text.replace(url.as_str(), "the address"))
}

/// The first bytes of an answer, at most so many; the rest is not read. Whoever answers may go on for ever.
pub(crate) async fn beginning(mut answer: reqwest::Response, most: usize) -> reqwest::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        bytes.extend_from_slice(&chunk[..chunk.len().min(most - bytes.len())]);
        if bytes.len() == most {
            break;
        }
    }
    Ok(bytes)
}
