//! The numbers of what goes wrong with UIDs, and what `mt explain` says about them.

use crate::workflow::code::Code;

/// A `ferry.*` key is missing or wrong.
pub const FERRY_NOT_CONFIGURED: Code = Code(170);
/// Our certificate, its key or the authorities cannot be used.
pub const FERRY_CERTIFICATE: Code = Code(171);
/// FERRY cannot be reached.
pub const FERRY_UNREACHABLE: Code = Code(172);
/// FERRY's certificate is not to be trusted.
pub const FERRY_UNTRUSTED: Code = Code(173);
/// FERRY does not take our certificate or token.
pub const FERRY_REFUSED: Code = Code(174);
/// FERRY answers with an HTTP error.
pub const FERRY_ERROR: Code = Code(176);
/// FERRY's answer cannot be read.
pub const FERRY_ANSWER: Code = Code(177);
/// FERRY answers that it has no answer.
pub const FERRY_SAYS_NO: Code = Code(178);
/// What FERRY calls a UID is none.
pub const FERRY_BAD_UID: Code = Code(179);
/// The UIDs cannot be read or written.
pub const UIDS_UNUSABLE: Code = Code(180);
/// The UIDs that were read back are not those that were stored.
pub const UIDS_DIFFER: Code = Code(181);
/// The existing service's database was not taken over.
pub const TAKEOVER: Code = Code(182);

/// For `mt explain`.
pub const EXPLANATIONS: &[(Code, &str, &str)] = &[
    (
        FERRY_NOT_CONFIGURED,
        "the configuration does not say how to ask FERRY",
        "Both methods need ferry.host (https) and ferry.caPath. --authmethod tls needs hostCert and hostKey, jwt needs\n\
         serviceKeytabPath, serviceKerberosPrincipal, serviceExperiment, serviceRole and vaultServer.",
    ),
    (
        FERRY_CERTIFICATE,
        "the certificates for FERRY cannot be used",
        "ferry.hostCert and hostKey are PEM files that the account running mt can read and that belong together;\n\
         ferry.caPath is a directory with at least one certificate in a *.pem file. The message names what is wrong.",
    ),
    (
        FERRY_UNREACHABLE,
        "FERRY cannot be reached",
        "The connection failed or broke off. The stored UIDs stay and tokens are pushed with them.\n\
         If it lasts: look at ferry.host and ferry.port, at the network, and at FERRY itself.",
    ),
    (
        FERRY_UNTRUSTED,
        "FERRY's certificate is not trusted",
        "No authority in ferry.caPath (*.pem) has signed it, it has expired, or it is for another name than ferry.host.\n\
         Update the directory, or correct the name.",
    ),
    (
        FERRY_REFUSED,
        "FERRY does not accept us",
        "tls: the client certificate has expired, or FERRY does not know it or gives it no rights.\n\
         jwt: the token of ferry.serviceExperiment and serviceRole gives no rights there. Ask those who run FERRY.",
    ),
    (
        FERRY_ERROR,
        "FERRY answers with an error",
        "The HTTP status is in the message, the beginning of the answer in  mt runs show . The stored UID stays.",
    ),
    (
        FERRY_ANSWER,
        "FERRY's answer cannot be read",
        "It is not JSON of the form {\"ferry_status\": \"success\", \"ferry_output\": {\"uid\": 1234}}, or far too long.\n\
         Its beginning is shown by  mt runs show . The stored UID stays.",
    ),
    (
        FERRY_SAYS_NO,
        "FERRY has no answer for the account",
        "The reason is FERRY's own. Usually the account is misspelled in the configuration, or was removed from FERRY.\n\
         The stored UID stays;  mt uids list  shows it,  mt uids set ACCOUNT UID  sets it by hand.",
    ),
    (
        FERRY_BAD_UID,
        "what FERRY calls a UID is none",
        "It is missing, 0, negative, too large or no whole number. It is not stored: a wrong UID would put tokens where\n\
         nobody finds them. Ask those who run FERRY; meanwhile  mt uids set ACCOUNT UID  sets it by hand.",
    ),
    (
        UIDS_UNUSABLE,
        "the UIDs cannot be read or written",
        "They are in the store and beside it in uids.json, in the state directory. The message says what failed.\n\
         See  mt store verify  and the free space there.",
    ),
    (
        UIDS_DIFFER,
        "the UIDs read back are not those that were stored",
        "Somebody set one at the same time (mt uids set), or the store does not keep what it is given.\n\
         mt uids list  shows what is there;  mt run ferry-refresh  stores them again;  mt store verify  checks the store.",
    ),
    (
        TAKEOVER,
        "the existing service's database was not taken over",
        "A start with an empty store takes UIDs and error counters over from the SQLite file at dbLocation. It could not:\n\
         the message says why. The file stays as it is, and the next start tries again while there are no UIDs.\n\
         Without it:  mt run ferry-refresh  or  mt uids set ACCOUNT UID .",
    ),
];
