//! What a request may need from Okta: a scope, when the credential is a service app's token, and in any case an admin role.

use std::fmt;

use serde::Serialize;

/// A right at Okta that some request needs.
///
/// Scopes are as the security of each operation in the Okta Management API reference names them. An operation that reads is
/// there given to the `read` scope and one that changes to the `manage` scope, and nothing says that the one includes the
/// other; so what reads and changes asks for both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Right {
    /// Reading the System Log.
    ReadLog,
    /// Reading users, their groups and their linked objects.
    ReadUsers,
    /// Reading the admin roles of users.
    ReadRoles,
    /// Reading the risk that Okta sees in a user.
    ReadRisk,
    /// Reading groups.
    ReadGroups,
    /// Putting users into groups and taking them out.
    ChangeMembers,
    /// Reading apps and their assignments.
    ReadApps,
    /// Taking apps away from users.
    ChangeAssignments,
    /// Ending the sessions of users.
    EndSessions,
    /// Suspending and deactivating users.
    ChangeStatus,
    /// Expiring passwords and resetting factors.
    ChangeCredentials,
    /// Universal Logout.
    LogOut,
    /// Setting the risk of users.
    ChangeRisk,
    /// Reading devices.
    ReadDevices,
    /// Suspending and deactivating devices.
    ChangeDevices,
    /// Reading Security Access Reviews.
    ReadReviews,
    /// Starting Security Access Reviews.
    StartReviews,
    /// Reading certification campaigns.
    ReadCampaigns,
    /// Making and launching certification campaigns.
    RunCampaigns,
}

/// An admin role that people can grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Role {
    /// Its type in Okta's API, such as `READ_ONLY_ADMIN`; `CUSTOM` where no standard role but that of a super
    /// administrator is enough.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// What people call it.
    pub label: &'static str,
}

const READ_ONLY: Role = Role { kind: "READ_ONLY_ADMIN", label: "Read-only Administrator" };
const HELP_DESK: Role = Role { kind: "HELP_DESK_ADMIN", label: "Help Desk Administrator" };
const GROUP_MEMBERSHIP: Role = Role { kind: "GROUP_MEMBERSHIP_ADMIN", label: "Group Membership Administrator" };
const GROUP_ADMIN: Role = Role { kind: "USER_ADMIN", label: "Group Administrator" };
const ORG: Role = Role { kind: "ORG_ADMIN", label: "Organization Administrator" };
const APP: Role = Role { kind: "APP_ADMIN", label: "Application Administrator" };
const CERTIFICATIONS: Role = Role { kind: "ACCESS_CERTIFICATIONS_ADMIN", label: "Access Certifications Administrator" };
const REVIEWS: Role = Role {
    kind: "CUSTOM",
    label: "a custom role that may manage security access reviews and view users, else Super Administrator",
};
const VIEWS_ROLES: Role =
    Role { kind: "CUSTOM", label: "Super Administrator (or a custom role that may view roles, okta.iam.read)" };

impl Right {
    /// The OAuth scope of the requests (Okta Management API reference, security of each operation).
    pub fn scope(self) -> &'static str {
        match self {
            Self::ReadLog => "okta.logs.read",
            Self::ReadUsers => "okta.users.read",
            Self::ReadRoles => "okta.roles.read",
            Self::ReadRisk => "okta.userRisk.read",
            Self::ReadGroups => "okta.groups.read",
            Self::ChangeMembers => "okta.groups.manage",
            Self::ReadApps => "okta.apps.read",
            Self::ChangeAssignments => "okta.apps.manage",
            Self::EndSessions | Self::ChangeStatus | Self::ChangeCredentials => "okta.users.manage",
            Self::LogOut => "okta.universalLogout.manage",
            Self::ChangeRisk => "okta.userRisk.manage",
            Self::ReadDevices => "okta.devices.read",
            Self::ChangeDevices => "okta.devices.manage",
            Self::ReadReviews => "okta.governance.securityAccessReviews.admin.read",
            Self::StartReviews => "okta.governance.securityAccessReviews.admin.manage",
            Self::ReadCampaigns => "okta.governance.accessCertifications.read",
            Self::RunCampaigns => "okta.governance.accessCertifications.manage",
        }
    }

    /// The least standard admin role that is enough (Okta help, "Standard administrator roles and permissions"), for users
    /// who are no administrators themselves: those only a super administrator may change. For reading risk Okta names none;
    /// what may view users is taken for enough; for setting it, for devices and for Universal Logout, an organization
    /// administrator.
    pub fn role(self) -> Role {
        match self {
            Self::ReadLog | Self::ReadUsers | Self::ReadGroups | Self::ReadApps | Self::ReadRisk => READ_ONLY,
            Self::ReadRoles => VIEWS_ROLES,
            Self::ChangeMembers => GROUP_MEMBERSHIP,
            Self::ChangeAssignments => APP,
            Self::EndSessions | Self::ChangeCredentials => HELP_DESK,
            Self::ChangeStatus => GROUP_ADMIN,
            Self::ReadDevices => READ_ONLY,
            Self::LogOut | Self::ChangeRisk | Self::ChangeDevices => ORG,
            Self::ReadReviews | Self::StartReviews => REVIEWS,
            Self::ReadCampaigns | Self::RunCampaigns => CERTIFICATIONS,
        }
    }

    /// The permissions with which a custom role is enough as well (Okta Management API guide, "Permissions"); empty where
    /// Okta names none.
    pub fn permissions(self) -> &'static [&'static str] {
        match self {
            Self::ReadLog | Self::ReadRisk => &[],
            Self::ReadUsers => &["okta.users.read"],
            Self::ReadRoles => &["okta.iam.read"],
            Self::ReadGroups => &["okta.groups.read"],
            Self::ChangeMembers => &["okta.groups.members.manage", "okta.users.groupMembership.manage"],
            Self::ReadApps => &["okta.apps.read"],
            Self::ChangeAssignments => &["okta.apps.assignment.manage", "okta.users.appAssignment.manage"],
            Self::EndSessions => &["okta.users.lifecycle.clearSessions"],
            Self::ChangeStatus => &["okta.users.lifecycle.manage"],
            Self::ChangeCredentials => &["okta.users.credentials.manage"],
            Self::LogOut | Self::ChangeRisk => &[],
            Self::ReadDevices => &["okta.devices.read"],
            Self::ChangeDevices => &["okta.devices.lifecycle.manage"],
            Self::ReadReviews | Self::StartReviews => &["okta.governance.securityAccessReviews.admin.manage"],
            Self::ReadCampaigns | Self::RunCampaigns => &["okta.governance.accessCertifications.manage"],
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadLog => "read the System Log",
            Self::ReadUsers => "read users",
            Self::ReadRoles => "read admin roles",
            Self::ReadRisk => "read the risk of users",
            Self::ReadGroups => "read groups",
            Self::ChangeMembers => "change the members of groups",
            Self::ReadApps => "read apps",
            Self::ChangeAssignments => "assign apps to users and take them away",
            Self::EndSessions => "end the sessions of users",
            Self::ChangeStatus => "suspend and deactivate users",
            Self::ChangeCredentials => "expire passwords and reset factors",
            Self::LogOut => "log users out everywhere",
            Self::ChangeRisk => "set the risk of users",
            Self::ReadDevices => "read devices",
            Self::ChangeDevices => "suspend and deactivate devices",
            Self::ReadReviews => "read security access reviews",
            Self::StartReviews => "start security access reviews",
            Self::ReadCampaigns => "read certification campaigns",
            Self::RunCampaigns => "make and launch certification campaigns",
        })
    }
}
