"""`cgan train` of photographs without a teacher: without any network that was trained before."""

from entry_cgan import main

if __name__ == "__main__":
    main(["--set", "teacher.weight=0"])
