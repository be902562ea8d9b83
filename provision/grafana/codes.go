package grafana

import "github.com/cryptoviz/cryptoviz/provision/plan"

// Codes are the findings about objects in Grafana.
var Codes = []plan.Code{
	codeProvisioned,
	codeEditsLost,
	codeEditsMerged,
	codeFolderDeleted,
	codeDashboardDeleted,
	codeSourceDeleted,
	codeRuleDeleted,
	codeTitleTaken,
	codeOtherType,
	codeFolderMoves,
	codeNewUID,
	codeDefaultChanges,
	codeOtherDatabase,
	codeSchemaV2,
	codeNoPermission,
}

var (
	codeProvisioned = plan.Code{
		ID: "CV-G01", Class: plan.Impossible, Title: "Provisioned by another way",
		Text: "The object comes from a file on Grafana's server, or from another tool. Grafana refuses to change " +
			"or delete it through its API.",
		Choices: []string{
			"change that file", "take the object out of the file provider; apply makes it then",
			"leave it out of pipeline.hcl",
		},
	}
	codeEditsLost = plan.Code{
		ID: "CV-G02", Class: plan.Destroys, Title: "Edits made in Grafana would be lost",
		Text: "Somebody saved the dashboard in Grafana since the last apply, or made it without this program, and " +
			"apply would overwrite what is named. Grafana keeps earlier versions in the dashboard's history, so that they can be restored there.",
		Choices: []string{
			"take the edits into the dashboard's file: in Grafana, Export as JSON",
			"agree: --allow CV-G02@dashboard.NAME", "restore the earlier version in Grafana",
		},
	}
	codeEditsMerged = plan.Code{
		ID: "CV-G03", Class: plan.Risky, Title: "Edited in Grafana and in the file, in different places",
		Text: "Somebody saved the dashboard in Grafana since the last apply, and the file changed other panels. Apply " +
			"makes the file's changes and keeps theirs. The next plan still shows theirs, since the file does not have them.",
		Choices: []string{
			"apply, then take the edits into the file",
			"apply, then set them back with consent (CV-G02)",
		},
	}
	codeFolderDeleted = plan.Code{
		ID: "CV-G04", Class: plan.Destroys, Title: "Folder is deleted with what it holds",
		Text: "Grafana deletes all dashboards, folders and alert rules in a folder along with it. What is named is " +
			"what its search knows: it may lag by some seconds.",
		Choices: []string{
			"move them to another folder first", "agree: --allow CV-G04@folder.NAME",
			"take the removed block out: the folder stays, unmanaged",
		},
	}
	codeDashboardDeleted = plan.Code{
		ID: "CV-G05", Class: plan.Risky, Title: "Dashboard is deleted",
		Text: "Its links and its version history go with it. It is as the last apply saved it, so the file still " +
			"has all of it. Grafana 13 can restore it for some days.",
		Choices: []string{"take the removed block out: the dashboard stays, unmanaged"},
	}
	codeSourceDeleted = plan.Code{
		ID: "CV-G06", Class: plan.Risky, Title: "Data source is deleted",
		Text: "Every panel and alert rule that reads it fails from then on, those that pipeline.hcl does not " +
			"declare too.",
		Choices: []string{
			"give them another data source first",
			"take the removed block out: the data source stays, unmanaged",
		},
	}
	codeRuleDeleted = plan.Code{
		ID: "CV-G07", Class: plan.Risky, Title: "Alert rule is deleted",
		Text:    "Notifications stop, and a firing alert never sends \"resolved\".",
		Choices: []string{"pause it in Grafana instead", "take the removed block out: the rule stays, unmanaged"},
	}
	codeTitleTaken = plan.Code{
		ID: "CV-G08", Class: plan.Impossible, Title: "Name is taken",
		Text: "Grafana wants each data source's name once and, but for version 12, each alert rule's title once " +
			"in a folder.",
		Choices: []string{"another title", "for a data source: its uid, which adopts it"},
	}
	codeOtherType = plan.Code{
		ID: "CV-G09", Class: plan.Impossible, Title: "The uid is a data source of another kind",
		Text: "Only PostgreSQL data sources are managed. Turning one of another kind into it would break all " +
			"that reads it.",
		Choices: []string{"another uid"},
	}
	codeFolderMoves = plan.Code{
		ID: "CV-G10", Class: plan.Risky, Title: "Folder moves",
		Text: "A folder takes permissions from the one that it is in, so who may see and edit what it holds " +
			"can change.",
		Choices: []string{"look at the permissions of the new parent first"},
	}
	codeNewUID = plan.Code{
		ID: "CV-G11", Class: plan.Risky, Title: "New uid",
		Text: "The uid is what a dashboard or a data source is known by. With another one it is a new object; the " +
			"old one stays, with its history and what links to it.",
		Choices: []string{"keep the uid", "delete the old one in Grafana when it is no longer needed"},
	}
	codeDefaultChanges = plan.Code{
		ID: "CV-G12", Class: plan.Risky, Title: "Default data source changes",
		Text: "Grafana has one default. Panels that name no data source, anywhere in the organisation, read " +
			"the new one.",
		Choices: []string{"default = false"},
	}
	codeOtherDatabase = plan.Code{
		ID: "CV-G13", Class: plan.Risky, Title: "Data source reads another database",
		Text:    "All panels and alert rules on it, other people's too, read from there as soon as it is saved.",
		Choices: []string{"a second data source with its own uid"},
	}
	codeSchemaV2 = plan.Code{
		ID: "CV-G14", Class: plan.Impossible, Title: "Dashboard is in schema version 2 now",
		Text: "Grafana 12 and 13 can store a dashboard with tabs and dynamic layouts (elements and layout). The file " +
			"is classic JSON, which cannot say that: saving it would throw the new layout away.",
		Choices: []string{
			"restore the last apply's version in Grafana, from the dashboard's history",
			"save a classic copy in Grafana under another uid, and leave this one unmanaged",
			"delete the dashboard in Grafana; apply makes it again from the file",
		},
	}
	codeNoPermission = plan.Code{
		ID: "CV-G15", Class: plan.Impossible, Title: "The credentials may not do it",
		Text: "Grafana says which permissions grafana.auth has, and the one that this change takes is not among them: " +
			"a token with the role Viewer plans, and cannot apply.",
		Choices: []string{
			"apply with a service account of the role that is named",
			"give the service account this permission",
		},
	}
)
