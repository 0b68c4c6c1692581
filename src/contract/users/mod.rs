//! Messages, events and errors of the users domain.
//!
//! Contains: serde types only, shared by the domain, the gateway and every transport between processes. Does not
//! contain: the rules that a request is checked by (`domains::users`). No type holds a password hash; tokens appear
//! only where their holder receives or sends them.

mod addresses;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::messaging::{CommonError, DomainError, ErrorKind, Identity, Role, Scopes};
use crate::types::{ApiKeyId, EmailAddress, FieldError, Page, PageRequest, SessionId, Timestamp, UserId};

pub use addresses::*;

/// A user with an account, or an anonymous guest. Never carries a password or a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Id; a guest who registers keeps it.
    pub id: UserId,
    /// E-mail address in lower case, unique among accounts. `null` for a guest.
    pub email: Option<EmailAddress>,
    /// Display name, 1 to 100 characters; empty for a guest.
    pub name: String,
    /// Role, which decides what requests are allowed.
    pub role: Role,
    /// Whether the address was confirmed by a mailed link.
    pub email_verified: bool,
    /// Address that replaces `email` once it is confirmed by a mailed link; absent when none was requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_email: Option<EmailAddress>,
    /// Whether signing in takes a code of an app besides the password.
    #[serde(default)]
    pub second_factor: bool,
    /// Time the account, or the guest, was created.
    pub created_at: Timestamp,
    /// Time of the last change of anything in the account, its password included.
    pub updated_at: Timestamp,
}

/// Creates a customer account. Sent by a guest, it turns the guest into the account: same id, same cart, and a new session,
/// because the token of a guest may be known to another person.
///
/// # Errors
/// [`UsersError::EmailTaken`] when another account has the address.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Register {
    /// E-mail address; compared without regard to case.
    pub email: String,
    /// Password, 8 to 200 characters; stored only as an argon2id hash.
    pub password: String,
    /// Display name, 1 to 100 characters on one line.
    pub name: String,
}

/// A new account, with the new session of a guest who has become its owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// The account.
    #[serde(flatten)]
    pub user: User,
    /// Bearer token that replaces the guest's; absent if the caller was no guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Time at which the new session ends; absent if the caller was no guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// Creates an anonymous user with a session, so that a cart has an owner.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CreateGuest {}

/// Creates a session from an e-mail address and a password.
///
/// # Errors
/// [`UsersError::BadCredentials`], after the same work whether the address or the password is wrong.
/// [`UsersError::SecondFactorRequired`] when the password is right and the account takes a code too.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SignIn {
    /// Address of the account.
    pub email: String,
    /// Password of the account.
    pub password: String,
    /// Code of the app, or a recovery code; required if the account has a second factor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// A new session. Its token is shown here only; no database holds it in a usable form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedIn {
    /// Bearer token of the session.
    pub token: String,
    /// Time at which the session ends.
    pub expires_at: Timestamp,
    /// Owner of the session.
    pub user: User,
}

/// Ends the caller's session.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SignOut {}

/// Resolves a bearer token or API key to its user. The gateway sends it for every request with a token.
///
/// # Errors
/// [`UsersError::InvalidToken`] for a token that is forged, expired or signed out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Authenticate {
    /// Token as the client sent it.
    pub token: String,
}

/// The user behind a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authenticated {
    /// User, role and credential.
    pub identity: Identity,
    /// Time at which the token ends; `null` for an API key, which has no end.
    pub expires_at: Option<Timestamp>,
}

/// Reads one user.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetUser {
    /// Id of the user.
    pub user_id: UserId,
}

/// Changes the given fields of a user. A new address takes effect when it is confirmed by a mailed link; a new password
/// and a new role end sessions and keys. The owner gets an e-mail about each.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UpdateUser {
    /// Id of the user.
    pub user_id: UserId,
    /// New display name, 1 to 100 characters on one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// New e-mail address; that of the account until it is confirmed. The present one withdraws a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// New password, 8 to 200 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Current password; required of the owner to change address or password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_password: Option<String>,
    /// New role; set by administrators only, and the last administrator keeps theirs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Whether the user's API keys survive a new password; by default they end with the sessions.
    #[serde(default)]
    pub keep_api_keys: bool,
}

impl UpdateUser {
    /// Returns a request that changes nothing yet.
    #[must_use]
    pub const fn of(user_id: UserId) -> Self {
        Self {
            user_id,
            name: None,
            email: None,
            password: None,
            current_password: None,
            role: None,
            keep_api_keys: false,
        }
    }
}

/// Erases a user: deletes all personal data of this domain at once, and by [`UserErased`] that of the others.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeleteUser {
    /// Id of the user.
    pub user_id: UserId,
}

/// Lists accounts, newest first. Guests are left out.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListUsers {
    /// Text that the name or the address must contain, without regard to case; at most 100 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub q: Option<String>,
    /// Page size and cursor.
    #[serde(flatten)]
    pub page: PageRequest,
}

/// Requests an e-mail with a password reset link. Succeeds for unknown addresses too, so that it reveals no account.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ForgotPassword {
    /// Address of the account.
    pub email: String,
}

/// Sets a new password by the token of a mailed link and ends all sessions of the user.
///
/// # Errors
/// [`UsersError::InvalidLink`] when the token is unknown, used or expired.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ResetPassword {
    /// Token of the link; valid once, for an hour.
    pub token: String,
    /// New password, 8 to 200 characters.
    pub password: String,
    /// Whether the user's API keys survive a new password; by default they end with the sessions.
    #[serde(default)]
    pub keep_api_keys: bool,
}

/// Confirms an e-mail address by the token of a mailed link. Repeating it changes nothing.
///
/// # Errors
/// [`UsersError::InvalidLink`] when the token is unknown or expired, or the address has changed since.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VerifyEmail {
    /// Token of the link; valid for 72 hours.
    pub token: String,
}

/// An API key without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// Id of the key.
    pub id: ApiKeyId,
    /// Label given by the owner, 1 to 100 characters.
    pub name: String,
    /// First 16 characters of the token, to recognise the key by.
    pub prefix: String,
    /// Requests that the key may send.
    #[serde(default)]
    pub scopes: Scopes,
    /// Time the key was created.
    pub created_at: Timestamp,
    /// Time at which the key ends; `null` for one without an end.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
    /// Time of the last use, rounded down to the minute; `null` before the first.
    pub last_used_at: Option<Timestamp>,
}

/// A new API key with its secret, which is shown here only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewApiKey {
    /// The key without its secret.
    #[serde(flatten)]
    pub api_key: ApiKey,
    /// Secret, sent as a bearer token.
    pub token: String,
}

/// Lists the caller's API keys, newest first, on one page.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListApiKeys {}

/// Creates an API key that acts for the caller. Guests may have none.
///
/// # Errors
/// [`UsersError::TooManyApiKeys`] above 50 keys per user.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CreateApiKey {
    /// Label, 1 to 100 characters on one line.
    pub name: String,
    /// Scopes: `*` for all, as when absent, or `DOMAIN:read` and `DOMAIN:write`. None that the caller lacks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<String>>,
    /// Time at which the key ends, in the future; absent for one without an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// Deletes one of the caller's API keys, which ends it at once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeleteApiKey {
    /// Id of the key.
    pub api_key_id: ApiKeyId,
}

/// Begins to set up a second factor: codes of an app by time (TOTP, RFC 6238). It takes effect with [`ConfirmTotp`].
///
/// # Errors
/// [`UsersError::SecondFactorOn`] when the account has one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EnrollTotp {
    /// Id of the user.
    pub user_id: UserId,
}

/// Secret of a second factor, for the app. Shown here only.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TotpEnrolment {
    /// Address that apps read, `otpauth://totp/...`.
    pub otpauth_url: String,
    /// Secret in base32, to type into an app.
    pub secret: String,
    /// QR code of the address, as an SVG image.
    pub qr_svg: String,
}

impl std::fmt::Debug for TotpEnrolment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TotpEnrolment")
    }
}

/// Switches the second factor on, by a code that proves that the app has the secret. Other sessions end.
///
/// # Errors
/// [`UsersError::WrongCode`]; [`UsersError::SecondFactorOff`] without a preceding [`EnrollTotp`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConfirmTotp {
    /// Id of the user.
    pub user_id: UserId,
    /// Code of the app.
    pub code: String,
}

/// Codes that replace the app once each, if it is lost. Shown here only.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryCodes {
    /// Ten codes.
    pub recovery_codes: Vec<String>,
}

impl std::fmt::Debug for RecoveryCodes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecoveryCodes")
    }
}

/// Switches the second factor off. The owner proves it by a code, an administrator by a recent sign-in.
///
/// # Errors
/// [`UsersError::WrongCode`]; [`UsersError::SecondFactorOff`] when the account has none.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DisableTotp {
    /// Id of the user.
    pub user_id: UserId,
    /// Code of the app, or a recovery code; required of the owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// Creates an account of any role but guest, with a verified address. For the command line and the sample data.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CreateUser {
    /// E-mail address, unique among accounts.
    pub email: String,
    /// Password, 8 to 200 characters.
    pub password: String,
    /// Display name, 1 to 100 characters on one line.
    pub name: String,
    /// Role: any but guest.
    pub role: Role,
    /// Creation time to record; the current time when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
}

crate::requests! { UsersError;
    "users.Register": Register => Registration, once, |_| Access::Anyone;
    "users.CreateGuest": CreateGuest => SignedIn, once, |_| Access::Anyone;
    "users.SignIn": SignIn => SignedIn, once, |_| Access::Anyone;
    "users.SignOut": SignOut => (), retry, |_| Access::SignedIn;
    "users.Authenticate": Authenticate => Authenticated, read, |_| Access::Internal;
    "users.GetUser": GetUser => User, read, |this| Access::OwnerOrStaff(this.user_id, Role::ReadOnly);
    "users.UpdateUser": UpdateUser => User, retry, |this| Access::OwnerOrStaff(this.user_id, Role::Manager);
    "users.DeleteUser": DeleteUser => (), retry, |this| Access::OwnerOrStaff(this.user_id, Role::Manager);
    "users.ListUsers": ListUsers => Page<User>, read, |_| Access::Staff(Role::ReadOnly);
    "users.ForgotPassword": ForgotPassword => (), retry, |_| Access::Anyone;
    "users.ResetPassword": ResetPassword => (), once, |_| Access::Anyone;
    "users.VerifyEmail": VerifyEmail => (), retry, |_| Access::Anyone;
    "users.ListApiKeys": ListApiKeys => Page<ApiKey>, read, |_| Access::SignedIn;
    "users.CreateApiKey": CreateApiKey => NewApiKey, once, |_| Access::SignedIn;
    "users.DeleteApiKey": DeleteApiKey => (), retry, |_| Access::SignedIn;
    "users.EnrollTotp": EnrollTotp => TotpEnrolment, once, |this| Access::Owner(this.user_id);
    "users.ConfirmTotp": ConfirmTotp => RecoveryCodes, once, |this| Access::Owner(this.user_id);
    "users.DisableTotp": DisableTotp => (), once, |this| Access::OwnerOrStaff(this.user_id, Role::Admin);
    "users.CreateUser": CreateUser => User, once, |_| Access::Internal;
}

/// Event: an account was created, or a guest became one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UserRegistered {
    /// Id of the user.
    pub user_id: UserId,
    /// E-mail address of the account.
    pub email: EmailAddress,
    /// Display name.
    pub name: String,
    /// Role of the account.
    pub role: Role,
    /// Whether the address is known to be the owner's.
    pub email_verified: bool,
    /// Creation time of the account; may lie in the past ([`CreateUser::created_at`]).
    pub created_at: Timestamp,
}

/// Event: name, address, its verification or role of a user changed. Carries the state after the change.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UserChanged {
    /// Id of the user.
    pub user_id: UserId,
    /// E-mail address; `null` for a guest.
    pub email: Option<EmailAddress>,
    /// Display name.
    pub name: String,
    /// Role of the user.
    pub role: Role,
    /// Whether the address is known to be the owner's.
    pub email_verified: bool,
}

/// Event: a user was erased. Subscribers delete or anonymize what they store of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UserErased {
    /// Id of the former user; never used again.
    pub user_id: UserId,
    /// Address the user had; `null` for a guest.
    pub email: Option<EmailAddress>,
}

/// Event: sessions ended or a role changed. Open sockets of the user must authenticate again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AccessChanged {
    /// Id of the user.
    pub user_id: UserId,
    /// Session concerned; `null` for all sessions and keys of the user.
    pub session_id: Option<SessionId>,
}

/// Event: an e-mail with a verification link is to be sent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EmailVerificationRequested {
    /// Id of the user.
    pub user_id: UserId,
    /// Address to verify, and to send to.
    pub email: EmailAddress,
    /// Id of the link, whose token [`IssueLinkToken`] returns when the e-mail is sent; see [`VerifyEmail`].
    pub link_id: Uuid,
}

/// Event: an e-mail with a password reset link is to be sent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PasswordResetRequested {
    /// Id of the user.
    pub user_id: UserId,
    /// Address to send to.
    pub email: EmailAddress,
    /// Id of the link, whose token [`IssueLinkToken`] returns when the e-mail is sent; see [`ResetPassword`].
    pub link_id: Uuid,
}

/// Event: credentials or rights of an account changed; its owner gets an e-mail.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CredentialsChanged {
    /// Id of the user.
    pub user_id: UserId,
    /// Address to send to: the one that the account had before the change.
    pub email: EmailAddress,
    /// Kind of the change.
    pub change: CredentialChange,
    /// Whether staff changed it, and not the owner.
    pub by_staff: bool,
}

/// Change of credentials or rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialChange {
    /// Another address was given, and is to be confirmed.
    EmailRequested,
    /// Another address was confirmed.
    Email,
    /// A new password was set.
    Password,
    /// An API key was created.
    ApiKey,
    /// The role was changed.
    Role,
    /// Codes of an app are asked for at sign-in.
    SecondFactorOn,
    /// Codes are no longer asked for.
    SecondFactorOff,
    /// The recipient changed password, address or role of another member of staff.
    OfStaff,
}

crate::events! { pub const EVENTS;
    "users.user_registered": UserRegistered;
    "users.user_changed": UserChanged;
    "users.user_erased": UserErased;
    "users.access_changed": AccessChanged;
    "users.email_verification_requested": EmailVerificationRequested;
    "users.password_reset_requested": PasswordResetRequested;
    "users.credentials_changed": CredentialsChanged;
}

/// Returns the token of a mailed link. For the mailer, at the moment of sending, so that no database and no event holds a
/// token that works.
///
/// # Errors
/// [`UsersError::InvalidLink`] when the link was used, has expired or was never made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IssueLinkToken {
    /// Id of the link.
    pub link_id: Uuid,
}

/// Token of a mailed link.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkToken {
    /// Text to put in the link.
    pub token: String,
}

impl std::fmt::Debug for LinkToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LinkToken")
    }
}

crate::requests! { UsersError;
    "users.IssueLinkToken": IssueLinkToken => LinkToken, read, |_| Access::Internal;
}

/// Returns those of the given ids that belong to a user. For `mercat check`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FilterExistingUsers {
    /// Ids to look up, at most 500.
    pub users: Vec<UserId>,
}

crate::requests! { crate::messaging::CommonError;
    "users.FilterExistingUsers": FilterExistingUsers => Vec<UserId>, read, |_| Access::Internal;
}

/// An error of the users domain. Its code is the variant's name in snake case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum UsersError {
    /// No user has this id; also after it was erased.
    #[error("there is no such user")]
    UserNotFound,
    /// Another account has this address.
    #[error("another account has this e-mail address; sign in, or reset its password")]
    EmailTaken,
    /// Address or password is wrong; the reply does not tell the two apart.
    #[error("e-mail or password is wrong")]
    BadCredentials,
    /// The password is right, and a code is needed too.
    #[error("this account also takes a code: send the `code` of the app, or a recovery code")]
    SecondFactorRequired,
    /// The code is wrong, was used before, or is of another time.
    #[error("the code is wrong or was used before; wait for the next one")]
    WrongCode,
    /// The account has a second factor.
    #[error("sign-in with a code is on already; switch it off first")]
    SecondFactorOn,
    /// The account has no second factor, or none that was set up.
    #[error("sign-in with a code is not set up")]
    SecondFactorOff,
    /// The bearer token is forged, expired or signed out.
    #[error("the token is not valid or has expired; sign in again")]
    InvalidToken,
    /// The token of a mailed link is forged, used or expired.
    #[error("this link is not valid, was used before or has expired; request a new one")]
    InvalidLink,
    /// The request would leave the shop without an administrator.
    #[error("the last administrator cannot be removed; appoint another one first")]
    LastAdmin,
    /// The caller has no API key with this id.
    #[error("there is no such API key")]
    ApiKeyNotFound,
    /// The caller has 50 API keys, the limit.
    #[error("the limit of API keys per user is reached; delete one first")]
    TooManyApiKeys,
    /// The user has no address with this id.
    #[error("there is no such address")]
    AddressNotFound,
    /// The user has 50 addresses, the limit.
    #[error("the limit of addresses per user is reached; delete one first")]
    TooManyAddresses,
    /// An error that every request can meet.
    #[error(transparent)]
    #[serde(untagged)]
    Common(#[from] CommonError),
}

crate::impl_from_common_errors!(UsersError);

impl DomainError for UsersError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::UserNotFound | Self::ApiKeyNotFound | Self::AddressNotFound => ErrorKind::NotFound,
            Self::EmailTaken
            | Self::LastAdmin
            | Self::TooManyApiKeys
            | Self::TooManyAddresses
            | Self::SecondFactorOn
            | Self::SecondFactorOff => ErrorKind::Conflict,
            Self::BadCredentials | Self::InvalidToken | Self::SecondFactorRequired => ErrorKind::Unauthenticated,
            Self::InvalidLink | Self::WrongCode => ErrorKind::Invalid,
            Self::Common(error) => error.kind(),
        }
    }

    fn fields(&self) -> &[FieldError] {
        match self {
            Self::Common(error) => error.fields(),
            _ => &[],
        }
    }
}
