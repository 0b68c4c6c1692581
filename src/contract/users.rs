//! What the users domain can be asked, answers and announces.

use serde::{Deserialize, Serialize};

use crate::messaging::{CommonError, DomainError, ErrorKind, Identity, Role};
use crate::types::{ApiKeyId, EmailAddress, FieldError, Page, PageRequest, SessionId, Timestamp, UserId};

/// A person with an account, or a nameless guest. Never carries a password or a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Who.
    pub id: UserId,
    /// Where they get mail; a guest has none.
    pub email: Option<EmailAddress>,
    /// What they are called; empty for a guest.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// Whether they have shown that the address is theirs.
    pub email_verified: bool,
    /// When the account was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// Makes an account. Asked by a guest, it turns the guest into it: the same id, the cart kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Register {
    /// Unique among accounts, whatever its case.
    pub email: String,
    /// 8 to 200 characters; kept only as an argon2id hash.
    pub password: String,
    /// 1 to 100 characters.
    pub name: String,
}

/// Makes a nameless user with a cart of its own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CreateGuest {}

/// Shows who one is by e-mail and password.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SignIn {
    /// The account's address.
    pub email: String,
    /// Its password.
    pub password: String,
}

/// A sign-in: shown once, its token is nowhere kept in a form that could be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedIn {
    /// The bearer token.
    pub token: String,
    /// When it ends.
    pub expires_at: Timestamp,
    /// Whose it is.
    pub user: User,
}

/// Ends the caller's sign-in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SignOut {}

/// Asks whose a bearer token or API key is. For the gateway.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Authenticate {
    /// The token as it was shown.
    pub token: String,
}

/// Whose a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authenticated {
    /// Who, and by what.
    pub identity: Identity,
    /// When the token ends, if it does.
    pub expires_at: Option<Timestamp>,
}

/// Reads one user.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetUser {
    /// Who.
    pub user_id: UserId,
}

/// Changes what is given of a user. A new e-mail must be verified again; a new password ends all other sign-ins.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UpdateUser {
    /// Who.
    pub user_id: UserId,
    /// The new name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The new address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// The new password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// The password so far; owners must show it to change e-mail or password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_password: Option<String>,
    /// The new role; administrators only, and the last one cannot resign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
}

/// Erases a user: everything that names the person goes, here and, by the event, everywhere.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeleteUser {
    /// Who.
    pub user_id: UserId,
}

/// Lists users, newest first, guests left out.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListUsers {
    /// Only those whose name or e-mail contains this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub q: Option<String>,
    /// Which page.
    #[serde(flatten)]
    pub page: PageRequest,
}

/// Asks for a mail by which the password can be set anew. Answers the same whether the address is known or not.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ForgotPassword {
    /// The account's address.
    pub email: String,
}

/// Sets the password by a mailed token and ends all sign-ins.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ResetPassword {
    /// The token from the mail; good once, for an hour.
    pub token: String,
    /// The new password.
    pub password: String,
}

/// Shows by a mailed token that an address is one's own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VerifyEmail {
    /// The token from the mail.
    pub token: String,
}

/// A key of a program, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// Which.
    pub id: ApiKeyId,
    /// What its owner calls it.
    pub name: String,
    /// How it begins, to know it by.
    pub prefix: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last used, to the minute.
    pub last_used_at: Option<Timestamp>,
}

/// A new key: its secret is shown this once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewApiKey {
    /// The key.
    #[serde(flatten)]
    pub api_key: ApiKey,
    /// The secret, to be sent as a bearer token.
    pub token: String,
}

/// Lists the caller's keys.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListApiKeys {}

/// Makes a key that acts for the caller.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CreateApiKey {
    /// 1 to 100 characters.
    pub name: String,
}

/// Ends one of the caller's keys.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeleteApiKey {
    /// Which.
    pub api_key_id: ApiKeyId,
}

/// Makes an account of any role, its address taken as verified; for the command line and the demo shop.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CreateUser {
    /// The address.
    pub email: String,
    /// The password.
    pub password: String,
    /// The name.
    pub name: String,
    /// The role.
    pub role: Role,
    /// When the account was made, if not now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
}

crate::requests! { UsersError;
    "users.Register": Register => User, once, |_| Access::Anyone;
    "users.CreateGuest": CreateGuest => SignedIn, once, |_| Access::Anyone;
    "users.SignIn": SignIn => SignedIn, once, |_| Access::Anyone;
    "users.SignOut": SignOut => (), retry, |_| Access::SignedIn;
    "users.Authenticate": Authenticate => Authenticated, retry, |_| Access::Internal;
    "users.GetUser": GetUser => User, retry, |this| Access::OwnerOrAdmin(this.user_id);
    "users.UpdateUser": UpdateUser => User, retry, |this| Access::OwnerOrAdmin(this.user_id);
    "users.DeleteUser": DeleteUser => (), retry, |this| Access::OwnerOrAdmin(this.user_id);
    "users.ListUsers": ListUsers => Page<User>, retry, |_| Access::Admin;
    "users.ForgotPassword": ForgotPassword => (), retry, |_| Access::Anyone;
    "users.ResetPassword": ResetPassword => (), once, |_| Access::Anyone;
    "users.VerifyEmail": VerifyEmail => (), retry, |_| Access::Anyone;
    "users.ListApiKeys": ListApiKeys => Page<ApiKey>, retry, |_| Access::SignedIn;
    "users.CreateApiKey": CreateApiKey => NewApiKey, once, |_| Access::SignedIn;
    "users.DeleteApiKey": DeleteApiKey => (), retry, |_| Access::SignedIn;
    "users.CreateUser": CreateUser => User, once, |_| Access::Internal;
}

/// An account was made, or a guest became one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UserRegistered {
    /// Who.
    pub user_id: UserId,
    /// Their address.
    pub email: EmailAddress,
    /// Their name.
    pub name: String,
    /// Their role.
    pub role: Role,
    /// When the account was made.
    pub created_at: Timestamp,
}

/// Name, address or role changed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UserChanged {
    /// Who.
    pub user_id: UserId,
    /// Their address now.
    pub email: Option<EmailAddress>,
    /// Their name now.
    pub name: String,
    /// Their role now.
    pub role: Role,
}

/// A person is gone: whoever keeps something of theirs erases it or makes it anonymous.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UserErased {
    /// Who.
    pub user_id: UserId,
    /// The address they had.
    pub email: Option<EmailAddress>,
}

/// Sign-ins ended or what they may do changed: open sockets must be looked at again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AccessChanged {
    /// Whose.
    pub user_id: UserId,
    /// Which sign-in; all of the user's when absent.
    pub session_id: Option<SessionId>,
}

/// A mail that proves an address is wanted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EmailVerificationRequested {
    /// Who.
    pub user_id: UserId,
    /// Where to.
    pub email: EmailAddress,
    /// Their name.
    pub name: String,
    /// What the mail must carry.
    pub token: String,
}

/// A mail to set the password anew is wanted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PasswordResetRequested {
    /// Who.
    pub user_id: UserId,
    /// Where to.
    pub email: EmailAddress,
    /// Their name.
    pub name: String,
    /// What the mail must carry.
    pub token: String,
}

crate::events! {
    "users.user_registered": UserRegistered;
    "users.user_changed": UserChanged;
    "users.user_erased": UserErased;
    "users.access_changed": AccessChanged;
    "users.email_verification_requested": EmailVerificationRequested;
    "users.password_reset_requested": PasswordResetRequested;
}

/// Says which of these users there are, at most 500. For `mercat check`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FilterExistingUsers {
    /// Of whom.
    pub users: Vec<UserId>,
}

crate::requests! { crate::messaging::CommonError;
    "users.FilterExistingUsers": FilterExistingUsers => Vec<UserId>, retry, |_| Access::Internal;
}

/// An error of the users domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum UsersError {
    /// No such user.
    #[error("there is no such user")]
    UserNotFound,
    /// Another account has this address.
    #[error("another account has this e-mail address; sign in, or reset its password")]
    EmailTaken,
    /// Address or password is wrong; which one is not said.
    #[error("e-mail or password is wrong")]
    BadCredentials,
    /// The bearer token is none of ours, has ended or was signed out.
    #[error("the token is not valid or has expired; sign in again")]
    InvalidToken,
    /// The mailed token is none of ours, was used or is too old.
    #[error("this link is not valid, was used before or is too old; ask for a new one")]
    InvalidLink,
    /// Somebody must run the shop.
    #[error("the last administrator cannot leave; name another one first")]
    LastAdmin,
    /// No such key.
    #[error("there is no such API key")]
    ApiKeyNotFound,
    /// A user may have only so many keys.
    #[error("there are as many API keys as one user may have; delete one first")]
    TooManyApiKeys,
    /// What can happen to any request.
    #[error(transparent)]
    #[serde(untagged)]
    Common(#[from] CommonError),
}

crate::impl_from_common_errors!(UsersError);

impl DomainError for UsersError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::UserNotFound | Self::ApiKeyNotFound => ErrorKind::NotFound,
            Self::EmailTaken | Self::LastAdmin | Self::TooManyApiKeys => ErrorKind::Conflict,
            Self::BadCredentials | Self::InvalidToken => ErrorKind::Unauthenticated,
            Self::InvalidLink => ErrorKind::Invalid,
            Self::Common(failure) => failure.kind(),
        }
    }

    fn fields(&self) -> &[FieldError] {
        match self {
            Self::Common(failure) => failure.fields(),
            _ => &[],
        }
    }
}
