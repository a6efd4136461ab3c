//! What workflow files may say about the shipped actions: the one table of needs and products, and the arguments of Exec.

use crate::workflow::action::{ActionInfo, Provision};
use crate::workflow::definition::read::{self, Mistake};
use crate::workflow::definition::{
    ActionShape, ActionSpec, Arguments, Catalog, CountsAs, ForEach, Library, Per, Place, codes,
};
use crate::workflow::id::Product;

/// The workflows that are compiled in, as (name, text).
pub const SHIPPED: &[(&str, &str)] = &[
    ("token-push", include_str!("../../workflows/token-push.ron")),
    ("ferry-refresh", include_str!("../../workflows/ferry-refresh.ron")),
];

/// A Kerberos ticket: dies with its process.
pub const TICKET: &str = "Ticket";
/// A vault token: kept in a file.
pub const VAULT_TOKEN: &str = "VaultToken";
/// The UID of the account: comes from the store or the configuration before the first step.
pub const UID: &str = "Uid";
/// What FERRY says the UID is: kept in the step's record.
pub const FETCHED_UID: &str = "FetchedUid";

/// The shipped actions.
#[derive(Clone, Copy, Debug, Default)]
pub struct ShippedActions;

/// The workflows a site can name: its own, in `MT_WORKFLOW_DIR` or /etc/managed-tokens/workflows, and the shipped ones.
pub fn library() -> Library {
    let directory = std::env::var_os("MT_WORKFLOW_DIR").filter(|directory| !directory.is_empty());
    Library::new(directory.unwrap_or_else(|| "/etc/managed-tokens/workflows".into()), SHIPPED)
}

const SERVICE: &[ForEach] = &[ForEach::Service];
const ACCOUNT: &[ForEach] = &[ForEach::Account];
const EITHER: &[ForEach] = &[ForEach::Service, ForEach::Account];

/// What an action of that name needs and provides. The actions' own `info()` ask here.
pub fn info_of(name: &str) -> ActionInfo {
    let spec = ActionSpec { name: name.to_owned(), arguments: None };
    ShippedActions.info(&spec).unwrap_or_default()
}

impl Catalog for ShippedActions {
    fn action(&self, name: &str) -> Option<ActionShape> {
        let step = |per, counts_as, arguments| ActionShape {
            place: Place::Steps,
            per,
            for_each: SERVICE,
            counts_as,
            arguments,
        };
        let of_account = |place, info| ActionShape {
            place,
            for_each: ACCOUNT,
            ..step(&[Per::Subject], CountsAs::Nothing, Arguments::None(info))
        };
        Some(match name {
            "Kinit" => step(&[Per::Subject], CountsAs::Setup, Arguments::None(kinit)),
            "GetVaultToken" => step(&[Per::Subject], CountsAs::Setup, Arguments::None(get_vault_token)),
            "StoreInCredd" => step(&[Per::Credd], CountsAs::Setup, Arguments::None(store_in_credd)),
            "Ping" => step(&[Per::Node], CountsAs::Setup, Arguments::None(ActionInfo::default)),
            "Push" => step(&[Per::Node], CountsAs::Push, Arguments::None(push)),
            // FERRY's errors are told at once: nobody counts them.
            "FetchUid" => of_account(Place::Steps, fetch_uid),
            "StoreUid" => of_account(Place::Steps, store_uid),
            "VerifyUids" => of_account(Place::Finally, ActionInfo::default),
            "Exec" => ActionShape {
                for_each: EITHER,
                ..step(
                    &[Per::Subject, Per::Credd, Per::Node],
                    CountsAs::Setup,
                    Arguments::Some(check_exec, "Exec(command: [\"/usr/local/bin/site-hook\"])"),
                )
            },
            "Notify" => ActionShape {
                place: Place::Finally,
                per: &[Per::Subject],
                for_each: EITHER,
                counts_as: CountsAs::Nothing,
                arguments: Arguments::None(ActionInfo::default),
            },
            _ => return None,
        })
    }

    fn names(&self) -> Vec<&'static str> {
        vec![
            "Kinit",
            "GetVaultToken",
            "StoreInCredd",
            "Ping",
            "Push",
            "FetchUid",
            "StoreUid",
            "VerifyUids",
            "Exec",
            "Notify",
        ]
    }

    fn given(&self) -> Vec<Product> {
        vec![Product::new(UID)]
    }
}

fn kinit() -> ActionInfo {
    ActionInfo { needs: vec![], provides: vec![Provision { product: Product::new(TICKET), outlives_process: false }] }
}

fn get_vault_token() -> ActionInfo {
    ActionInfo {
        needs: vec![Product::new(TICKET)],
        provides: vec![Provision { product: Product::new(VAULT_TOKEN), outlives_process: true }],
    }
}

fn store_in_credd() -> ActionInfo {
    ActionInfo { needs: vec![Product::new(TICKET)], provides: vec![] }
}

fn push() -> ActionInfo {
    ActionInfo { needs: vec![Product::new(TICKET), Product::new(VAULT_TOKEN), Product::new(UID)], provides: vec![] }
}

fn fetch_uid() -> ActionInfo {
    ActionInfo {
        needs: vec![],
        provides: vec![Provision { product: Product::new(FETCHED_UID), outlives_process: true }],
    }
}

fn store_uid() -> ActionInfo {
    ActionInfo {
        needs: vec![Product::new(FETCHED_UID)],
        provides: vec![Provision { product: Product::new(UID), outlives_process: true }],
    }
}

/// The arguments of `Exec(…)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecArguments {
    /// The program and its arguments; at least the program.
    pub command: Vec<String>,
    /// What must be there.
    pub needs: Vec<Product>,
    /// What is there afterwards. mt cannot know whether it lasts, so it dies with the process.
    pub provides: Vec<Product>,
}

impl ExecArguments {
    /// Reads `(command: […], needs: […], provides: […])`, as [`ActionSpec::arguments`] holds it.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn parse(text: &str) -> Result<Self, Vec<Mistake<'_>>> {
        const FIELDS: &[&str] = &["command", "needs", "provides"];
        let fields = read::fields(text, "Exec").map_err(|mistake| vec![mistake])?;
        let mut mistakes = Vec::new();
        let mut command = None;
        let (mut needs, mut provides) = (Vec::new(), Vec::new());
        let mut given = false;
        for field in read::known_fields(fields, "Exec", FIELDS, &mut mistakes) {
            match field.key {
                "command" => {
                    given = true;
                    command = keep(words(field.value), &mut mistakes);
                }
                "needs" => needs = keep(products(field.value), &mut mistakes).unwrap_or_default(),
                "provides" => provides = keep(products(field.value), &mut mistakes).unwrap_or_default(),
                _ => {}
            }
        }
        if !given {
            mistakes.push(
                Mistake::new(codes::MISSING_FIELD, read::first_token(text), "Exec has no `command`")
                    .with_help("add command: [\"/path/to/program\", \"argument\"]"),
            );
        }
        match command {
            Some(command) if mistakes.is_empty() => Ok(Self { command, needs, provides }),
            Some(_) | None => Err(mistakes),
        }
    }

    /// What the step needs and provides.
    pub fn info(&self) -> ActionInfo {
        let provision = |product: &Product| Provision { product: product.clone(), outlives_process: false };
        ActionInfo { needs: self.needs.clone(), provides: self.provides.iter().map(provision).collect() }
    }
}

fn check_exec(text: &str) -> Result<ActionInfo, Vec<Mistake<'_>>> {
    ExecArguments::parse(text).map(|arguments| arguments.info())
}

fn keep<'a, T>(read: Result<T, Vec<Mistake<'a>>>, mistakes: &mut Vec<Mistake<'a>>) -> Option<T> {
    read.map_err(|wrong| mistakes.extend(wrong)).ok()
}

/// A program and its arguments.
fn words(value: &str) -> Result<Vec<String>, Vec<Mistake<'_>>> {
    let items = read::list(value).map_err(|mistake| {
        vec![
            mistake.with_help("write the program and each argument by itself: command: [\"/path/to/program\", \"-v\"]"),
        ]
    })?;
    let words = each(&items, |item| match read::text(item)? {
        // No argument of a program can hold it.
        word if word.contains('\0') => {
            Err(Mistake::new(codes::ARGUMENTS, read::first_token(item), "a command cannot hold a NUL character"))
        }
        word => Ok(word),
    })?;
    match words.first() {
        Some(program) if !program.is_empty() => Ok(words),
        Some(_) | None => {
            let at = read::first_token(items.first().copied().unwrap_or(value));
            Err(vec![Mistake::new(codes::ARGUMENTS, at, "`command` names no program")])
        }
    }
}

/// Names such as `Ticket`, without quotes.
fn products(value: &str) -> Result<Vec<Product>, Vec<Mistake<'_>>> {
    let items = read::list(value).map_err(|mistake| vec![mistake.with_help("write a list: [Ticket, VaultToken]")])?;
    each(&items, |item| match read::variant(item, "the name of a product, such as Ticket, without quotes")? {
        (name, None) => Ok(Product::new(name)),
        (_, Some(arguments)) => {
            Err(Mistake::new(codes::WRONG_FORM, read::first_token(arguments), "a product takes no arguments"))
        }
    })
}

fn each<'a, T>(
    items: &[&'a str],
    read: impl Fn(&'a str) -> Result<T, Mistake<'a>>,
) -> Result<Vec<T>, Vec<Mistake<'a>>> {
    let (mut values, mut mistakes) = (Vec::new(), Vec::new());
    for item in items {
        match read(item) {
            Ok(value) => values.push(value),
            Err(mistake) => mistakes.push(mistake),
        }
    }
    if mistakes.is_empty() { Ok(values) } else { Err(mistakes) }
}
