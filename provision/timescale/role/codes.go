package role

import "github.com/cryptoviz/cryptoviz/provision/plan"

// Codes are the findings about roles.
var Codes = []plan.Code{
	codeNoCreateRole,
	codeNoGrant,
	codeProtectedRole,
	codeRoleOwns,
	codeRoleInUse,
	codeOtherDatabases,
	codePasswordNotASCII,
	codePrivilegesRevoked,
	codePassedOn,
}

var (
	codeNoCreateRole = plan.Code{
		ID: "CV-R01", Class: plan.Impossible, Title: "No right to make or alter roles",
		Text: "Making, altering and dropping roles needs CREATEROLE, from PostgreSQL 16 on with the ADMIN " +
			"option on the role. The user of database.url does not have it.",
		Choices: []string{"an administrator makes or alters the role with the statements that the plan shows, and " +
			"apply gives it its grants", "apply with a user that has the right"},
	}
	codeNoGrant = plan.Code{
		ID: "CV-R02", Class: plan.Impossible, Title: "No right to grant",
		Text: "Only the owner of a table or view, or a member of the owning role, gives privileges on it.",
		Choices: []string{
			"apply with the user that owns it",
			"make the user of database.url its owner: ALTER TABLE … OWNER TO …",
		},
	}
	codeProtectedRole = plan.Code{
		ID: "CV-R03", Class: plan.Impossible, Title: "Superuser or owner",
		Text: "A superuser, a role that owns objects, and the user of database.url itself are never altered: a " +
			"wrong step would lock everybody out, and grants mean nothing to an owner.",
		Choices: []string{"a role of another name for programs", "take the block away"},
	}
	codeRoleOwns = plan.Code{
		ID: "CV-R04", Class: plan.Impossible, Title: "Role that still has something",
		Text: "PostgreSQL drops a role only when nothing belongs to it and it holds no privileges anywhere on the " +
			"server. What it owns is never given to another by apply.",
		Choices: []string{
			"REASSIGN OWNED BY … TO … in each database, by hand", "revoke what it has in other databases",
			"revoke what another role than the owner gave it, as that role: SET ROLE …; REVOKE … ON … FROM …",
		},
	}
	codeRoleInUse = plan.Code{
		ID: "CV-R05", Class: plan.Risky, Title: "Role in use",
		Text: "Programs are connected with it, or others gave it privileges that pipeline.hcl does not know. " +
			"Programs that use it can connect no more.",
		Choices: []string{"stop these programs first", "keep the role"},
	}
	codeOtherDatabases = plan.Code{
		ID: "CV-R06", Class: plan.Risky, Title: "Role that other databases use",
		Text: "A role belongs to the whole server. This one exists already and has privileges in other databases; " +
			"its login and password change there, too.",
		Choices: []string{"a role of another name", "declare what it has now"},
	}
	codePasswordNotASCII = plan.Code{
		ID: "CV-R07", Class: plan.Impossible, Title: "Password with other signs than ASCII",
		Text:    "Clients differ in how they normalize such signs, so some could not log in.",
		Choices: []string{"a password of printable ASCII"},
	}
	codePrivilegesRevoked = plan.Code{
		ID: "CV-R08", Class: plan.Risky, Title: "Privileges taken back",
		Text:    "The last apply gave them and the block declares them no more. Programs that still use them fail.",
		Choices: []string{"make sure that no program needs them", "declare them again"},
	}
	codePassedOn = plan.Code{
		ID: "CV-R09", Class: plan.Impossible, Title: "Privileges that the role passed on",
		Text: "The role had a privilege WITH GRANT OPTION and gave it to other roles. PostgreSQL takes it back " +
			"only when they lose it, too, and apply takes nothing from roles that the change is not about.",
		Choices: []string{"give these roles the privilege by the owner, and take back what the role gave: REVOKE … ON " +
			"… FROM … CASCADE", "declare the privilege again"},
	}
)
