//! What the parameters of Okta's actions have in common.

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Reads an action's typed parameters.
pub(super) fn parse<T: DeserializeOwned>(params: &Value) -> Result<T, String> {
    T::deserialize(params).map_err(|error| error.to_string())
}

/// An id or a name: not empty, and not `me`, which Okta reads as whoever the token belongs to.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
pub(super) struct Name(pub(super) String);

impl TryFrom<String> for Name {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.trim() {
            "" => Err("an id or a name is empty"),
            "me" => Err("`me` is no id: Okta reads it as the owner of the token"),
            name => Ok(Self(name.to_owned())),
        }
    }
}
