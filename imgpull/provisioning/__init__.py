"""Clusters that are made and given back: AKS by Terraform, from the description in conf/cluster."""

from imgpull.provisioning import az, terraform
from imgpull.provisioning.lifecycle import Provisioned as Provisioned
from imgpull.provisioning.lifecycle import ensure as ensure
from imgpull.provisioning.lifecycle import give_back as give_back
from imgpull.provisioning.lifecycle import require_room as require_room
from imgpull.provisioning.lifecycle import standing as standing

PROGRAMS = {"terraform": terraform.INSTALL, "az": az.INSTALL}  # and how to get them
